/* The memory calculator: ftkit/memory/activations.py and estimator.py in plain JavaScript, on the same catalogue.

The names are Python's, so that the two can be read side by side; a shared file of cases holds their numbers together.
*/
(function (root) {
  "use strict";

  const MOMENTS = { adamw: 2, adamw_8bit: 2, paged_adamw: 2, paged_adamw_8bit: 2, sgd: 0, sgd_momentum: 1 };
  const STATIC = ["quantized_weights", "weights", "embeddings", "adapters", "gradients", "master_weights", "optimizer"];
  const MIXED = [1.15, 0.95], CHUNK_LOGITS = 2 ** 24, MARGIN = 0.08, CUDA_CONTEXT = 1e9;
  const DEFAULTS = {
    method: "qlora", rank: 64, train_embeddings: false, lora_dropout: 0, batch_size: 4, sequence_length: 2048,
    trained_tokens: null, padded: null, precision: "mixed", optimizer: null, use_gradient_checkpointing: null,
    attn_implementation: "sdpa", chunked_loss: true, double_quantization: true, quantize_experts: true,
    wide_dtype: "bfloat16", shards: 1, device: "cuda",
  };

  const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);

  /* The catalogue leaves out what has its default. */
  function architecture(entry) {
    const a = { rope_dim: 0, q_rank: 0, kv_rank: 0, qk_norm: false, norm: "llama", sandwich: false, sliding_layers: 0,
      sliding_window: 0, moe_layers: 0, experts: 0, top_k: 0, moe_ffn: 0, shared_ffn: 0, note: "", ...entry.architecture };
    a.shapes = a.shapes.map((shape) => {
      const s = { stack: 1, adapted: "", where: "", tied: false, ...shape };
      s.numel = s.d_in * s.d_out * s.stack;
      s.total = s.tied ? 0 : s.numel * s.count;
      return s;
    });
    a.count = (...kinds) => sum(a.shapes.filter((s) => kinds.includes(s.kind)).map((s) => s.total));
    a.buffers = a.count("buffer");
    a.parameters = sum(a.shapes.map((s) => s.total)) - a.buffers;
    a.vocabulary = a.shapes.find((s) => s.kind === "embedding").d_in;
    return a;
  }

  /* ---- activations.py ---- */

  function norm(a, step, width, rows, given) {
    const scaled = a.norm === "gemma" && given ? 4 : given;
    return rows * (4 * width + 4 + (step.full ? scaled * width : 0));
  }

  function inputs(step, shapes, width, normed, kept) {
    if (step.full) {
      if (step.autocast && normed) return 2 * width * shapes.length;
      return kept ? 0 : step.compute * width;
    }
    const beside = shapes.filter((s) => s.adapted === "module").length;
    const on_weight = shapes.some((s) => s.adapted === "parameter");
    const number = step.autocast ? 2 : step.wide;
    let total = beside * step.rank * number;
    let shared = kept ? 0 : step.compute * width;
    if (step.dropout) total += beside * width * (step.cuda ? 1 : number);
    if (beside) {
      const copies = step.dropout || step.autocast || step.wide !== step.compute;
      total += copies ? beside * width * number : shared;
      shared = copies ? shared : 0;
    }
    return total + (on_weight ? shared : 0);
  }

  const entry_of = (a) => a.shapes.filter(
    (s) => s.where === "attention" && s.kind === "linear" && s.d_in === a.hidden && s.name !== "o_proj");

  function attention(a, step, masked) {
    const c = step.compute, heads = a.heads;
    const named = (name) => a.shapes.filter((s) => s.where === "attention" && s.kind === "linear" && s.name === name);
    let total = inputs(step, entry_of(a), a.hidden, true, false);
    if (a.kv_rank) {
      if (a.q_rank) total += norm(a, step, a.q_rank, 1, c) + inputs(step, named("q_b_proj"), a.q_rank, true, false);
      total += norm(a, step, a.kv_rank, 1, c) + (c === 4 ? 4 * a.rope_dim : 0);
      total += inputs(step, named("kv_b_proj"), a.kv_rank, true, false);
    } else if (a.qk_norm) {
      const weighted = a.shapes.some((s) => s.name === "q_norm");
      total += norm(a, step, a.head_dim, heads + a.kv_heads, weighted ? c : 0);
    }
    const sdpa = step.attention === "sdpa", eager = step.attention === "eager";
    const unfused = eager || (sdpa && a.head_dim !== a.v_head_dim && !step.cuda);
    const kv_heads = eager || (sdpa && masked) ? heads : a.kv_heads;
    total += c * (heads * a.head_dim + kv_heads * (a.head_dim + a.v_head_dim));
    if (unfused) {
      total += step.sequence_length * heads * (c < 4 ? 4 + c : 4);
      return total + inputs(step, named("o_proj"), heads * a.v_head_dim, false, false);
    }
    total += 4 * heads + c * heads * a.v_head_dim;
    if (masked && sdpa) total += c * step.sequence_length;
    return total + inputs(step, named("o_proj"), heads * a.v_head_dim, false, true);
  }

  function mlp(a, step, shapes, width) {
    const down = shapes.filter((s) => s.name === "down_proj");
    const entry = shapes.filter((s) => s.name === "gate_proj" || s.name === "up_proj");
    const total = inputs(step, entry, a.hidden, true, false) + 3 * width * step.compute;
    return total + inputs(step, down, width, false, false);
  }

  function experts(a, step) {
    const shared = a.shapes.filter((s) => s.where === "shared");
    const rows = a.model_type.startsWith("llama4") ? a.experts : a.top_k;
    let total = rows * (2 * a.hidden + 4 * a.moe_ffn) * step.compute + 40 * a.top_k + 4 * a.experts;
    if (shared.length) total += mlp(a, step, shared, a.shared_ffn);
    else if (step.full) total += step.compute * a.hidden;
    if (step.full && step.compute < 4 && a.model_type.startsWith("deepseek")) total += 4 * a.hidden;
    return total;
  }

  function layer(a, step, moe, masked) {
    let total = (a.sandwich ? 4 : 2) * norm(a, step, a.hidden, 1, step.residual);
    total += attention(a, step, masked);
    total += moe ? experts(a, step) : mlp(a, step, a.shapes.filter((s) => s.where === "mlp"), a.ffn);
    return total * step.tokens;
  }

  function kinds(a, step) {
    const sliding = step.sequence_length >= a.sliding_window ? a.sliding_layers : 0;
    const masked = step.padded || a.model_type === "deepseek_v32" ? a.layers : sliding;
    const all = a.moe_layers
      ? [[false, masked > 0, a.layers - a.moe_layers], [true, masked > 0, a.moe_layers]]
      : [[false, true, masked], [false, false, a.layers - masked]];
    return all.filter((kind) => kind[2]);
  }

  function made_anew(a, step) {
    if (step.full) return 0;
    return sum(a.shapes.filter((s) => s.adapted === "parameter").map((s) => s.total)) * step.compute;
  }

  function without_gradient(a, step) {
    const masks = step.dropout ? entry_of(a).filter((s) => s.adapted === "module").length : 0;
    return 4 * a.hidden + 4 + masks * a.hidden * (step.cuda ? 1 : step.autocast ? 2 : step.wide);
  }

  function autocast_numbers(a, step) {
    if (step.full) return a.count("linear", "expert") + a.shapes.find((s) => s.kind === "head").numel;
    return sum(a.shapes.filter((s) => s.adapted === "module")
      .map((s) => s.count * s.stack * step.rank * (s.d_in + s.d_out)));
  }

  function outside(a, step) {
    let total = step.tokens * norm(a, step, a.hidden, 1, step.residual);
    total += 2 * step.sequence_length * (a.rope_dim || a.head_dim) * step.residual * (a.sliding_layers ? 2 : 1);
    if (step.full) {
      total += 8 * step.tokens;
      total += step.labels * a.hidden * (step.autocast ? 2 : step.compute);
    }
    if (a.norm === "gemma") total += 4 * a.count("vector");
    if (step.autocast) total += 2 * autocast_numbers(a, step);
    return total;
  }

  function saved_for_backward(a, step) {
    const found = kinds(a, step);
    const layers = found.map(([moe, masked]) => layer(a, step, moe, masked));
    let layered;
    if (step.checkpointing) {
      const checkpoints = a.layers * a.hidden * step.residual * step.tokens;
      layered = checkpoints + Math.max(...layers) + made_anew(a, step) / a.layers;
    } else {
      layered = sum(layers.map((bytes, i) => bytes * found[i][2])) + made_anew(a, step);
      if (!step.full) layered -= step.tokens * without_gradient(a, step);
    }
    const total = layered + outside(a, step);
    return a.moe_layers || a.kv_rank ? [total * MIXED[1], total * MIXED[0]] : [total, total];
  }

  function transients(a, step) {
    const rows = a.model_type.startsWith("llama4") ? a.experts : Math.max(1, a.top_k);
    const widest = Math.max(a.ffn, a.shared_ffn, rows * a.moe_ffn);
    const made_anew = step.full ? 0 : Math.max(0, ...a.shapes.filter((s) => s.adapted === "parameter").map((s) => s.numel));
    const activations = step.tokens * Math.max(step.compute, step.full ? 0 : step.wide) * (3 * widest + 2 * rows * a.hidden);
    return activations + made_anew * step.compute;
  }

  function logits(a, step) {
    const V = a.vocabulary, half = step.compute < 4;
    if (!step.chunked) return [step.tokens * V * 8, step.tokens * V * (8 + (half ? step.compute + 4 : 4))];
    const rows = Math.min(step.labels, Math.max(1, Math.floor(CHUNK_LOGITS / V)));
    const head = half && step.full ? V * a.hidden * 6 : 0;
    return [rows * V * 4, rows * V * (4 + (half ? 2 * step.compute : 0)) + head];
  }

  /* ---- estimator.py ---- */

  const width_of = (run) => (run.precision === "bfloat16" || (run.full && run.precision === "mixed") ? 2 : 4);

  function step_of(run, padded, autocast) {
    const compute = run.precision === "float32" ? 4 : 2, B = run.batch_size, S = run.sequence_length;
    return { full: run.full, rank: run.rank, dropout: run.lora_dropout > 0, compute, wide: width_of(run), autocast,
      attention: run.attn_implementation, padded, checkpointing: run.checkpointing, chunked: run.chunked_loss,
      cuda: run.device === "cuda", sequence_length: S, tokens: B * S,
      labels: run.trained_tokens === null ? B * (S - 1) : run.trained_tokens,
      residual: run.full && autocast ? 4 : compute };
  }

  function trained_tensors(a, run) {
    if (run.full) {
      return a.shapes.filter((s) => s.kind !== "buffer" && s.where !== "indexer" && !s.tied)
        .map((s) => [s.numel, s.count]);
    }
    const tensors = a.shapes.filter((s) => s.adapted).flatMap(
      (s) => [[run.rank * s.d_in * s.stack, s.count], [run.rank * s.d_out * s.stack, s.count]]);
    if (run.train_embeddings) {
      tensors.push(...a.shapes.filter((s) => s.kind === "embedding" || s.kind === "head").map((s) => [s.numel, s.count]));
    }
    return tensors;
  }

  function nf4_bytes(numel, double_quantization) {
    const blocks = Math.ceil(numel / 64);
    return Math.ceil(numel / 2) + (double_quantization ? blocks + 4 * Math.ceil(blocks / 256) : 4 * blocks);
  }

  function optimizer_state_bytes(name, numel, width) {
    if (!name.endsWith("8bit")) return MOMENTS[name] * numel * width;
    return MOMENTS[name] * (numel < 4096 ? 4 * numel : numel + 4 * Math.ceil(numel / 256));
  }

  const is_packed = (s, run) => (s.kind === "expert" ? run.quantize_experts
    : (s.kind === "linear" || s.kind === "indexer") && s.name !== "weights_proj");

  function static_parts(a, run) {
    const base = run.precision === "float32" || (run.full && run.precision === "autocast") ? 4 : 2;
    const qlora = run.method === "qlora", trained = width_of(run);
    const wide = qlora ? (run.wide_dtype === "float32" ? 4 : 2) : base;
    const parts = Object.fromEntries(STATIC.map((name) => [name, 0]));
    for (const s of a.shapes) {
      if (s.kind === "embedding" || s.kind === "head") parts.embeddings += s.total * wide;
      else if (qlora && is_packed(s, run)) parts.quantized_weights += nf4_bytes(s.numel, run.double_quantization) * s.count;
      else parts.weights += s.total * (s.kind === "buffer" ? 4 : wide);
    }
    const tensors = trained_tensors(a, run);
    const numbers = sum(tensors.map(([numel, count]) => numel * count));
    if (!run.full) parts.adapters = numbers * trained;
    parts.gradients = numbers * trained;
    if (run.full && run.precision === "mixed") parts.master_weights = 4 * numbers;
    const width = run.precision === "mixed" ? 4 : trained;
    parts.optimizer = sum(tensors.map(([n, count]) => optimizer_state_bytes(run.optimizer, n, width) * count));
    for (const name of STATIC) parts[name] = Math.ceil(parts[name] / run.shards);
    return parts;
  }

  function gathered_bytes(a, run) {
    const matrices = a.shapes.filter((s) => s.kind === "linear" || s.kind === "expert");
    const number = run.precision === "float32" ? 4 : 2, qlora = run.method === "qlora";
    const stored = (s) => (qlora && is_packed(s, run) ? nf4_bytes(s.numel, run.double_quantization) : number * s.numel);
    let size = run.shards > 1 ? Math.floor(sum(matrices.map((s) => s.count * stored(s))) / a.layers) : 0;
    if (qlora) size += number * Math.max(...matrices.filter((s) => s.kind === "linear").map((s) => s.numel));
    return size;
  }

  /* The estimate for an entry of the catalogue; `settings` has the names and meaning of Python's `Settings`. */
  function estimate(entry, settings) {
    const a = architecture(entry), run = { ...DEFAULTS, ...settings };
    run.full = run.method === "full";
    run.checkpointing = run.use_gradient_checkpointing === null ? run.method !== "lora" : run.use_gradient_checkpointing;
    run.optimizer = run.optimizer || (run.method === "qlora" ? "paged_adamw_8bit" : "adamw");
    const parts = static_parts(a, run);
    const padded = run.padded === null ? [false, true] : [run.padded];
    const autocast = !run.full && run.precision === "mixed" ? [false, true] : [run.precision === "autocast"];
    const found = padded.flatMap((p) => autocast.map((c) => saved_for_backward(a, step_of(run, p, c))));
    const low = Math.min(...found.map((f) => f[0])), high = Math.max(...found.map((f) => f[1]));
    const step = step_of(run, true, false), loss = logits(a, step), gathered = gathered_bytes(a, run);
    const fixed = sum(Object.values(parts)), work = gathered + transients(a, step);
    const margin = MARGIN * (fixed + high + loss[1] + work) + (run.device === "cuda" ? CUDA_CONTEXT : 0);
    const bounds = { activations: [low, high], logits: loss, workspace: [gathered, work + margin] };
    const components = { ...parts };
    for (const [name, bound] of Object.entries(bounds)) components[name] = Math.floor((bound[0] + bound[1]) / 2);
    return {
      total_parameters: a.parameters,
      total_with_buffers: a.parameters + a.buffers,
      trainable_parameters: sum(trained_tensors(a, run).map(([numel, count]) => numel * count)),
      components,
      total_bytes: sum(Object.values(components)),
      lower_bytes: fixed + Math.floor(sum(Object.values(bounds).map((bound) => bound[0]))),
      upper_bytes: fixed + Math.ceil(sum(Object.values(bounds).map((bound) => bound[1]))),
      note: a.note,
    };
  }

  /* ---- the page ---- */

  const gb = (bytes) => (bytes / 1e9).toFixed(2) + " GB";
  const cell = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });

  function start() {
    const form = document.getElementById("calculator");
    if (!form) return;
    const { models, cards } = root.FTKIT_CATALOGUE;
    for (const name of Object.keys(models)) form.elements.model.append(new Option(name, name));
    for (const card of cards) form.elements.gpu.append(new Option(`${card.name} (${card.memory_gb} GB)`, card.name));
    form.elements.model.value = "llama-3-8b";
    form.elements.gpu.value = "RTX 4090";
    form.addEventListener("input", show);
    form.addEventListener("submit", (event) => event.preventDefault());
    show();

    function show() {
      const e = form.elements, settings = {};
      for (const name of ["rank", "batch_size", "sequence_length", "shards"]) {
        settings[name] = e[name].valueAsNumber;
        if (!(settings[name] >= 1) || settings[name] % 1) return say(`${e[name].labels[0].textContent.trim()}: a whole number above 0.`);
      }
      settings.method = e.method.value;
      settings.use_gradient_checkpointing = e.checkpointing.checked;
      settings.chunked_loss = e.chunked_loss.checked;
      const result = estimate(models[e.model.value], settings);
      const card = cards.find((c) => c.name === e.gpu.value), memory = card.memory_gb * 1e9;
      const rows = Object.entries(result.components).filter(([, bytes]) => bytes).map(([name, bytes]) => {
        const row = document.createElement("tr");
        row.append(cell("td", name.replaceAll("_", " ")), cell("td", gb(bytes)));
        return row;
      });
      document.getElementById("calculator-components").replaceChildren(...rows);
      const fits = result.upper_bytes <= memory ? "It fits" : result.lower_bytes > memory ? "It does not fit" : "It may or may not fit";
      say(`${fits} on ${settings.shards > 1 ? settings.shards + " × " : "one "}${card.name}: ${gb(result.total_bytes)} a card, between `
        + `${gb(result.lower_bytes)} and ${gb(result.upper_bytes)}. ${result.trainable_parameters.toLocaleString("en")} of `
        + `${result.total_parameters.toLocaleString("en")} parameters train. ${result.note}`);
    }

    function say(text) {
      document.getElementById("calculator-answer").textContent = text;
    }
  }

  root.ftkitEstimate = estimate;
  if (typeof document !== "undefined") document.addEventListener("DOMContentLoaded", start);
})(typeof window === "undefined" ? globalThis : window);
