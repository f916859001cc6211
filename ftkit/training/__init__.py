"""Trainers on PEFT and the Transformers Trainer."""
