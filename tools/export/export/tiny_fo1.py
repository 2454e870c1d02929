"""Small VLM-FO1 checkpoints, laid out as published, and taught a few answers: random weights would write none."""

import json

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import AddedToken

from . import tiny
from .vlm_fo1 import built, names

MARKS = ["<ground>", "</ground>", "<objects>", "</objects>"]
WORDS = [
    "Please detect person in a red jacket in this image. Answer the question with object indexes. Detect all the instances "
    "of: car; a dog next to the van; traffic light. system You are a helpful assistant. user assistant None",
]


def tokenizer(tag, count):
    before, tiny.CORPUS[:] = list(tiny.CORPUS), WORDS
    try:
        made = tiny.byte_tokenizer([], tiny.CHATML)
    finally:
        tiny.CORPUS[:] = before
    more = [*MARKS, *(tag.format(i) for i in range(count))]
    made.add_special_tokens([AddedToken(text, special=False, normalized=False) for text in more])
    return made


def published(name):
    """The checkpoint's name of a tensor: the inverse of `names`."""
    for before, after in (("model.visual.", "model.vision_tower.image_tower."), ("aux_tower.", "model.vision_tower_aux.image_tower."),
                          ("regions.norms.", "model.object_vp_extractor."), ("regions.projector.", "model.mm_projector_aux."),
                          ("regions.", "model.object_vp_extractor."), ("projector.", "model.mm_projector."),
                          ("model.language_model.", "model.")):
        if name.startswith(before):
            return after + name[len(before):]
    return name


def write_weights(folder, model, parts=1):
    """Under the published names, in one file or, as large checkpoints come, in several."""
    named = list(model.named_parameters())
    if any(names(published(own)) != own for own, _ in named):
        raise AssertionError("a name does not come back")
    weights = {published(own): weight.detach().clone().contiguous() for own, weight in named}
    for part in range(parts):
        own = {name: weights[name] for name in sorted(weights)[part::parts]}
        name = "model.safetensors" if parts == 1 else f"model-{part + 1:05}-of-{parts:05}.safetensors"
        save_file(own, folder / name, {"format": "pt"})


def checkpoint(folder, seed=0, tag="<region{}>", count=100, fpn=True, norms=False, dynamic=True, depth=3, whole=(1,),
               head=8, sections=(1, 1, 2), window=112, roi=7, channels=8, projector="identity", vision_width=16,
               dims=(4, 8, 12, 16), parts=1, order=None):
    made = tokenizer(tag, count)
    ids = {key: made.token_to_id(f"<|{name}|>") for key, name in (
        ("image_token_id", "image_pad"), ("video_token_id", "video_pad"),
        ("vision_start_token_id", "vision_start"), ("vision_end_token_id", "vision_end"))}
    hidden, states = 4 * head, 4 * channels if fpn else vision_width * len(whole)
    config = {
        "model_type": "omchat_qwen2_5_vl", "hidden_size": hidden, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": made.get_vocab_size(), "rope_theta": 10000.0,
        "max_position_embeddings": 4096, "tie_word_embeddings": False, "bos_token_id": None,
        "eos_token_id": made.token_to_id("<|im_end|>"), "rms_norm_eps": 1e-6,
        "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": list(sections)}, **ids,
        "vision_config": {"depth": depth, "hidden_size": vision_width, "num_heads": 2, "intermediate_size": 24,
                          "patch_size": 14, "window_size": window, "fullatt_block_indexes": list(whole),
                          "out_hidden_size": hidden},
        "mm_vision_tower": "qwen2_5_vl", "mm_vision_tower_aux": "davit-tiny", "mm_projector_type": projector,
        "mm_projector_aux_type": "mlp2x_gelu", "mm_region_hidden_size": sum(dims) + states, "mm_roi_output_size": roi,
        "mm_apply_position_embedding": True, "mm_pos_embedding_strategy": "bbox_based", "mm_hidden_size": hidden,
        "mm_use_vision_tower_region_feature": True, "mm_region_feature_combination": "concat",
        "mm_use_simpleFPN_for_vt": fpn, "mm_apply_region_layer_norm": norms, "mm_use_region_index_token": True,
        "aux_image_size": 1024, "aux_image_aspect_ratio": "dynamic" if dynamic else "squash", "fpn_channels": channels,
        "aux_vision_config": {"dims": list(dims), "depths": [1, 1, 1, 1], "heads": [2, 2, 2, 2], "window": 3},
    }
    if order:
        config["mm_bbox_order_mode"] = order
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    built_for = transformers.Qwen2_5_VLConfig(**{k: v for k, v in config.items() if k != "model_type"})
    torch.manual_seed(seed)
    model = tiny.randomise(built(built_for, config), seed)
    write_weights(folder, model, parts)
    made.save(str(folder / "tokenizer.json"), pretty=False)
    tiny.write(folder, tiny.clip_picture(28))
    return model


def teach(model, lessons, steps=400, rate=4e-3):
    """Trains the language model alone, on prompts (tokens, the picture's token, what stands for picture and regions, positions)
    and answers, until it says those."""
    text = model.model.language_model
    weights = [*text.parameters(), model.lm_head.weight]
    for weight in weights:
        weight.requires_grad_(True)
    optimiser = torch.optim.Adam(weights, lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    for step in range(steps):
        total = 0.0
        for ids, image, features, told, positions, answer in lessons:
            prompt = text.embed_tokens(ids.clamp(min=0))
            prompt = prompt.masked_scatter((ids == image)[..., None], features)
            prompt = prompt.masked_scatter((ids < 0)[..., None], told)
            embeds = torch.cat((prompt, text.embed_tokens(answer[None, :-1])), dim=1)
            after = positions.max() + 1 + torch.arange(len(answer) - 1)
            at = torch.cat((positions, after.expand(3, 1, -1)), dim=2)
            out = text(inputs_embeds=embeds, position_ids=at, use_cache=False).last_hidden_state
            logits = model.lm_head(out[0, prompt.shape[1] - 1:])
            total = total + torch.nn.functional.cross_entropy(logits, answer)
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        if float(total.detach()) / len(lessons) < 0.004:
            break
    model.requires_grad_(False)
    return float(total.detach()) / len(lessons), step
