"""Rendered chats, compared with the strings that the publishers' own templates give."""

import pytest

from ftkit.models import known_names, load_tokenizer

CHAT = [
    {"role": "system", "content": "You are concise."},
    {"role": "user", "content": "Say hi."},
    {"role": "assistant", "content": "Hi!\n\tBye."},
    {"role": "user", "content": "Again"},
    {"role": "assistant", "content": "Hi."},
]
DEEPSEEK_CHAT = [
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "Hello! I am DeepSeek."},
    {"role": "user", "content": "1+1=?"},
]
TINY = [name for name in known_names() if name.startswith("tiny-")]

RENDERED = {
    "tiny-llama3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou are concise.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nSay hi.<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHi!\n\tBye.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nAgain<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHi.<|eot_id|>"
    ),
    "tiny-llama4": (
        "<|begin_of_text|><|header_start|>system<|header_end|>\n\nYou are concise.<|eot|>"
        "<|header_start|>user<|header_end|>\n\nSay hi.<|eot|>"
        "<|header_start|>assistant<|header_end|>\n\nHi!\n\tBye.<|eot|>"
        "<|header_start|>user<|header_end|>\n\nAgain<|eot|>"
        "<|header_start|>assistant<|header_end|>\n\nHi.<|eot|>"
    ),
    "tiny-qwen3": (
        "<|im_start|>system\nYou are concise.<|im_end|>\n<|im_start|>user\nSay hi.<|im_end|>\n"
        "<|im_start|>assistant\nHi!\n\tBye.<|im_end|>\n<|im_start|>user\nAgain<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\nHi.<|im_end|>\n"
    ),
    "tiny-deepseek-v3": (
        "<｜begin▁of▁sentence｜>You are concise.<｜User｜>Say hi.<｜Assistant｜>Hi!\n\tBye.<｜end▁of▁sentence｜>"
        "<｜User｜>Again<｜Assistant｜>Hi.<｜end▁of▁sentence｜>"
    ),
    "tiny-deepseek-v3.2": (
        "<｜begin▁of▁sentence｜>You are concise.<｜User｜>Say hi."
        "<｜Assistant｜></think>Hi!\n\tBye.<｜end▁of▁sentence｜>"
        "<｜User｜>Again<｜Assistant｜></think>Hi.<｜end▁of▁sentence｜>"
    ),
    "tiny-gemma3": (
        "<bos><start_of_turn>user\nYou are concise.\n\nSay hi.<end_of_turn>\n<start_of_turn>model\nHi!\n\tBye."
        "<end_of_turn>\n<start_of_turn>user\nAgain<end_of_turn>\n<start_of_turn>model\nHi.<end_of_turn>\n"
    ),
    "tiny-smollm": (
        "<|im_start|>system\nYou are concise.<|im_end|>\n<|im_start|>user\nSay hi.<|im_end|>\n"
        "<|im_start|>assistant\nHi!\n\tBye.<|im_end|>\n<|im_start|>user\nAgain<|im_end|>\n"
        "<|im_start|>assistant\nHi.<|im_end|>\n"
    ),
}
RENDERED["tiny-qwen3-moe"] = RENDERED["tiny-qwen3"]
RENDERED["tiny-gemma3-vision"] = RENDERED["tiny-gemma3"]

PROMPT_ENDS = [  # (name, arguments, end of the prompt for the first two messages)
    ("tiny-llama3", {}, "<|start_header_id|>assistant<|end_header_id|>\n\n"),
    ("tiny-llama4", {}, "<|header_start|>assistant<|header_end|>\n\n"),
    ("tiny-qwen3", {}, "<|im_end|>\n<|im_start|>assistant\n"),
    ("tiny-qwen3", {"enable_thinking": False}, "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
    ("tiny-qwen3-moe", {"enable_thinking": False}, "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
    ("tiny-deepseek-v3", {}, "Say hi.<｜Assistant｜>"),
    ("tiny-deepseek-v3", {"enable_thinking": True}, "<｜Assistant｜><think>\n"),
    ("tiny-deepseek-v3.2", {"enable_thinking": False}, "<｜Assistant｜></think>"),
    ("tiny-deepseek-v3.2", {"enable_thinking": True}, "<｜Assistant｜><think>"),
    ("tiny-gemma3", {}, "<start_of_turn>model\n"),
    ("tiny-smollm", {}, "<|im_start|>assistant\n"),
]


def render(name, messages, **kwargs):
    return load_tokenizer(name).apply_chat_template(messages, tokenize=False, **kwargs)


@pytest.mark.parametrize("name", TINY)
def test_conversation_is_the_published_string(name):
    assert render(name, CHAT) == RENDERED[name]


@pytest.mark.parametrize(("name", "arguments", "end"), PROMPT_ENDS)
def test_prompt_ends_as_published(name, arguments, end):
    assert render(name, CHAT[:2], add_generation_prompt=True, **arguments).endswith(end)


def test_deepseek_v32_example_of_the_publisher():
    assert render("tiny-deepseek-v3.2", DEEPSEEK_CHAT, add_generation_prompt=True, enable_thinking=True) == (
        "<｜begin▁of▁sentence｜><｜User｜>hello<｜Assistant｜></think>Hello! I am DeepSeek.<｜end▁of▁sentence｜>"
        "<｜User｜>1+1=?<｜Assistant｜><think>"
    )


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("turn", [2, 4])
@pytest.mark.parametrize("first", [0, 1], ids=["with system", "without system"])
def test_prompt_is_a_prefix_of_its_answered_conversation(name, turn, first):
    tokenizer = load_tokenizer(name)

    def ids(messages, **kwargs):
        return tokenizer.apply_chat_template(messages, enable_thinking=False, return_dict=False, **kwargs)

    prompt = ids(CHAT[first:turn], add_generation_prompt=True)
    whole = ids(CHAT[first : turn + 1])
    assert whole[: len(prompt)] == prompt
    assert CHAT[turn]["content"] in tokenizer.decode(whole[len(prompt) :])


@pytest.mark.parametrize("name", TINY)
def test_a_rendered_chat_has_one_bos_where_the_family_has_one(name):
    tokenizer = load_tokenizer(name)
    ids = tokenizer.apply_chat_template(CHAT, return_dict=False)
    if name == "tiny-smollm":  # its bos is the start of every turn
        assert ids.count(tokenizer.bos_token_id) == len(CHAT)
    elif tokenizer.bos_token_id is not None:
        assert ids[0] == tokenizer.bos_token_id
        assert ids.count(tokenizer.bos_token_id) == 1


def test_smollm_brings_a_system_prompt_where_none_is_given():
    text = render("tiny-smollm", CHAT[1:])
    assert text.startswith(
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nSay hi.<|im_end|>\n"
    )


def test_gemma_refuses_roles_that_do_not_alternate():
    with pytest.raises(Exception, match="alternate"):
        render("tiny-gemma3", [CHAT[1], CHAT[3]])
