"""Chat templates (Jinja) of the model families, each as small as the family's text conversation allows.

Every template renders `messages`, a list of `{"role", "content"}` with string contents, through
`tokenizer.apply_chat_template`. They cover text turns with the roles system, user and assistant; tool calls and
stored reasoning are left to the publishers' own templates.

One property holds for all of them and training depends on it: with `enable_thinking=False` and
`add_generation_prompt=True` the rendered prompt is an exact prefix of the same conversation rendered with its answer.
What a family puts before a non-thinking answer (an empty think block, or a closing `</think>`) is part of the prompt.
"""

# Llama 3, first release: 3.1 and later put a dated system block in front, which would make every rendering depend on
# the calendar. Contents are trimmed, as in the publisher's template.
LLAMA3 = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

# Llama 4: the shape of Llama 3 with other tokens, contents as they are.
LLAMA4 = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|header_start|>' + message['role'] + '<|header_end|>\n\n' + message['content'] + '<|eot|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|header_start|>assistant<|header_end|>\n\n' }}{% endif %}"
)

# Qwen 3: no BOS. The empty think block stands in a final assistant turn only, so earlier turns are rewritten when a
# conversation goes on. Without `enable_thinking` the prompt ends before the block, as in the publisher's template.
QWEN3 = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and loop.last %}"
    "{{ '<think>\n\n</think>\n\n' + message['content'].lstrip('\n') }}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)

# DeepSeek-V3: the system text follows BOS without a marker. Some distributions of this template end every prompt in
# `<think>\n` (the reasoning model's), which no trained answer continues; here that needs `enable_thinking=True`.
DEEPSEEK_V3 = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '<｜Assistant｜>' + message['content'] + eos_token }}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}"
    "{% if enable_thinking is defined and enable_thinking %}{{ '<think>\n' }}{% endif %}"
    "{% endif %}"
)

# DeepSeek-V3.2: the publisher gives Python code and no Jinja. The thinking switch follows the assistant token: an
# answer without thinking closes it at once, a thinking prompt opens it.
DEEPSEEK_V32 = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '<｜Assistant｜></think>' + message['content'] + eos_token }}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<｜Assistant｜>' + ('<think>' if enable_thinking is defined and enable_thinking else '</think>') }}"
    "{% endif %}"
)

# Gemma 3: no system role (its text opens the first user turn), the assistant is called "model", roles alternate.
GEMMA3 = (
    "{{ bos_token }}"
    "{% set system = messages[0]['content'] + '\n\n' if messages[0]['role'] == 'system' else '' %}"
    "{% for message in (messages[1:] if system else messages) %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{{ (system if loop.first else '') + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)

# SmolLM2: ChatML, with a default system prompt where the conversation brings none.
SMOLLM = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
