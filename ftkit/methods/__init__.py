"""How each parameter-efficient method is set up on PEFT."""
