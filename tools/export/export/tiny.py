"""Small checkpoints with random weights, laid out as published ones are: what the self-test and the fixtures export.

Every weight is drawn, biases and norms too: the zeros and ones that transformers starts from would hide a forgotten
bias. Tokenizers are real ones, trained on a few words here.
"""

import json
import os

# transformers asks the hub for details of a local tokenizer otherwise.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

CORPUS = [
    "Locate every instance that belongs to the following categories: person, car.",
    "Report bbox coordinates in JSON format.",
    "Locate the person in a red jacket, output its bbox coordinates using JSON format. detect cat ; dog",
    "Locate the objects with category name in the image. Locate the phrases in the caption: a man next to the van",
    "Is there a van in the zoomed-in view? Answer Yes or No. No Yes",
    "[{\"bbox_2d\": [12, 34, 56, 78], \"label\": \"person\"}]",
]
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
          "<|box_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
MERGES = 64


def byte_tokenizer(first, last):
    """Byte-level BPE, as Qwen and BART use, with `first` special tokens before the words and `last` after them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=256 + len(first) + MERGES, special_tokens=first, initial_alphabet=alphabet,
                                  show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in last])
    return tokenizer


def piece_tokenizer(first, last):
    """BPE over pieces with bytes as the last resort, as Gemma uses."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=len(first) + 256 + 2 * MERGES, special_tokens=first + pieces,
                                  show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in last])
    return tokenizer


def randomise(model, seed, embedding=0.5):
    """Weights that keep the size of what they carry, so that logits are of the order of one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() == 0:
                # A scale or a bias of everything: as it was made.
                continue
            if weight.dim() == 1:
                # A norm's scale is drawn around one; Gemma's are stored less one, and stay small either way.
                centre = 1.0 if "norm" in name and name.endswith("weight") and weight.abs().sum() > 0 else 0.0
                weight.copy_(centre + 0.2 * noise)
            elif "embed" in name and weight.dim() == 2:
                weight.copy_(noise * embedding)
            else:
                weight.copy_(noise / weight[0].numel() ** 0.5)
    return model.eval()


def save(folder, model, tokenizer, picture, end):
    """A checkpoint folder, with the files the exporter reads."""
    model.generation_config = transformers.GenerationConfig(eos_token_id=end)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    write(folder, picture)


def write(folder, picture):
    """What stands beside the weights."""
    (folder / "preprocessor_config.json").write_text(json.dumps(picture, indent=2))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nRandom weights, for tests.\n")


def qwen(folder, config_class, model_class, picture, vision, text=(), seed=0, tied=False, sections=(2, 3, 3),
         rope=None, head=16, flat=False):
    tokenizer = byte_tokenizer([], CHATML)
    ids = {key: tokenizer.token_to_id(f"<|{name}|>") for key, name in (
        ("image_token_id", "image_pad"), ("video_token_id", "video_pad"),
        ("vision_start_token_id", "vision_start"), ("vision_end_token_id", "vision_end"))}
    words = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": head, "vocab_size": tokenizer.get_vocab_size(), "rope_theta": 10000.0,
        "max_position_embeddings": 4096, "tie_word_embeddings": tied, "bos_token_id": None, "eos_token_id": None,
        "rope_scaling": rope or {"type": "mrope", "rope_type": "default", "mrope_section": list(sections)},
        **dict(text)}
    if config_class is not transformers.Qwen3VLConfig:
        words.pop("head_dim")
        words["hidden_size"] = head * words["num_attention_heads"]
    vision = {**vision, ("hidden_size" if config_class is transformers.Qwen2VLConfig else "out_hidden_size"):
              words["hidden_size"]}
    config = config_class(text_config=words, vision_config=vision, tie_word_embeddings=tied, **ids)
    end = [tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")]
    save(folder, randomise(model_class(config), seed), tokenizer, picture, end)
    if flat:
        # As Qwen2 and Qwen2.5 are published: what describes the text stands beside, not under, `text_config`.
        path = folder / "config.json"
        written = json.loads(path.read_text())
        path.write_text(json.dumps({**written.pop("text_config"), **written}))


def clip_picture(unit, **more):
    return {"image_processor_type": "Qwen2VLImageProcessor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "rescale_factor": 1 / 255,
            "min_pixels": 4 * unit * unit, "max_pixels": 12 * unit * unit, "patch_size": unit // 2, "merge_size": 2,
            "temporal_patch_size": 2, **more}


def qwen2_vl(folder, seed=0, depth=2, heads=2, width=16, **more):
    vision = {"depth": depth, "embed_dim": width * heads, "num_heads": heads, "mlp_ratio": 2, "patch_size": 14}
    qwen(folder, transformers.Qwen2VLConfig, transformers.Qwen2VLForConditionalGeneration, clip_picture(28),
         vision, seed=seed, **more)


def qwen2_5_vl(folder, seed=0, depth=3, heads=2, width=16, whole=(1,), window=112, **more):
    vision = {"depth": depth, "hidden_size": width * heads, "num_heads": heads, "intermediate_size": 40,
              "patch_size": 14, "window_size": window, "fullatt_block_indexes": list(whole)}
    qwen(folder, transformers.Qwen2_5_VLConfig, transformers.Qwen2_5_VLForConditionalGeneration, clip_picture(28),
         vision, seed=seed, **more)


def qwen3_vl(folder, seed=0, depth=3, heads=2, width=16, deep=(0, 1), table=64, sections=(4, 2, 2),
             **more):
    vision = {"depth": depth, "hidden_size": width * heads, "num_heads": heads, "intermediate_size": 40,
              "patch_size": 16, "num_position_embeddings": table, "deepstack_visual_indexes": list(deep)}
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "image_processor_type": "Qwen2VLImageProcessorFast"}
    # As published: the sizes stand under `size` here.
    picture = clip_picture(32, **half, size={"shortest_edge": 4096, "longest_edge": 12288})
    del picture["min_pixels"], picture["max_pixels"]
    rope = {"rope_type": "default", "mrope_interleaved": True, "mrope_section": list(sections)}
    qwen(folder, transformers.Qwen3VLConfig, transformers.Qwen3VLForConditionalGeneration, picture, vision, seed=seed,
         rope=rope, **more)


def florence2(folder, seed=0, depths=(1, 1), window=3, layers=2, heads=4, side=32, dims=(16, 32), hidden=32):
    """The published one has four stages and 768 pixels; windows here do not divide the cells, so that filling shows."""
    tokenizer = byte_tokenizer(["<s>", "<pad>", "</s>", "<unk>"], [f"<loc_{i}>" for i in range(1000)] + ["<image>"])
    stages = len(dims)
    vision = {
        "depths": list(depths), "embed_dim": list(dims), "num_heads": [2] * stages, "num_groups": [2] * stages,
        "patch_size": [7] + [3] * (stages - 1), "patch_stride": [4] + [2] * (stages - 1),
        "patch_padding": [3] + [1] * (stages - 1), "patch_prenorm": [False] + [True] * (stages - 1),
        "window_size": window, "projection_dim": hidden, "max_position_embeddings": 12, "max_temporal_embeddings": 4,
        "mlp_ratio": 2.0, "drop_path_rate": 0.0}
    words = {
        "model_type": "bart", "vocab_size": tokenizer.get_vocab_size(), "d_model": hidden, "encoder_layers": layers,
        "decoder_layers": layers, "encoder_attention_heads": heads, "decoder_attention_heads": heads,
        "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 256, "bos_token_id": 0,
        "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": None}
    config = transformers.Florence2Config(
        text_config=words, vision_config=vision, image_token_id=tokenizer.token_to_id("<image>"), bos_token_id=0,
        pad_token_id=1, eos_token_id=2)
    picture = {"image_processor_type": "CLIPImageProcessor", "size": {"height": side, "width": side}, "resample": 3,
               "do_center_crop": False, "rescale_factor": 1 / 255,
               "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    model = randomise(transformers.Florence2ForConditionalGeneration(config), seed)
    save(folder, model, tokenizer, picture, 2)


def paligemma(folder, seed=0, version=2, layers=2, heads=4, kv_heads=1, side=56, hidden=32):
    tokenizer = piece_tokenizer(["<pad>", "<eos>", "<bos>", "<unk>"], [f"<loc{i:04}>" for i in range(1024)] +
                                [f"<seg{i:03}>" for i in range(128)] + ["<image>"])
    words = {
        "model_type": "gemma2" if version == 2 else "gemma", "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": hidden, "intermediate_size": 48, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": 16, "max_position_embeddings": 1024, "pad_token_id": 0,
        "eos_token_id": 1, "bos_token_id": 2, "hidden_activation": "gelu_pytorch_tanh"}
    if version == 2:
        words |= {"query_pre_attn_scalar": 24, "sliding_window": 512, "attn_logit_softcapping": 5.0,
                  "final_logit_softcapping": 6.0}
    vision = {"model_type": "siglip_vision_model", "hidden_size": hidden, "intermediate_size": 48,
              "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14, "image_size": side,
              "vision_use_head": False, "projection_dim": hidden, "num_image_tokens": (side // 14) ** 2}
    config = transformers.PaliGemmaConfig(
        text_config=words, vision_config=vision, image_token_index=tokenizer.token_to_id("<image>"),
        projection_dim=hidden, hidden_size=hidden, pad_token_id=0, bos_token_id=2, eos_token_id=1)
    picture = {"image_processor_type": "SiglipImageProcessor", "size": {"height": side, "width": side}, "resample": 3,
               "rescale_factor": 1 / 255, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    model = randomise(transformers.PaliGemmaForConditionalGeneration(config), seed, embedding=0.15)
    save(folder, model, tokenizer, picture, 1)
