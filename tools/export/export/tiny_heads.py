"""Small random checkpoints of the families that give scores and boxes, laid out as published ones are."""

import json

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers.models.grounding_dino import modeling_grounding_dino

from . import tiny
from .detection import CLIP, IMAGENET

LABELS = ["person", "bicycle", "car", "traffic light", "dog"]
WORDS = ("a an the person people man woman red blue green jacket coat car van truck bus bicycle traffic light dog cat of "
         "photo in on next to left right with something else blurry background").split()


def clip_tokenizer(first=(), begin="<|startoftext|>", end="<|endoftext|>"):
    """Byte pairs with the end of a word marked, small letters only, begun and ended by tokens of their own."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=end))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    alphabet = sorted(set("abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"))
    trainer = trainers.BpeTrainer(vocab_size=150, special_tokens=list(first), initial_alphabet=alphabet,
                                  end_of_word_suffix="</w>", show_progress=False)
    tokenizer.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in (begin, end)])
    ids = [(text, tokenizer.token_to_id(text)) for text in (begin, end)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{begin} $A {end}", special_tokens=ids)
    return tokenizer


def end_tokenizer():
    """Pieces, ended by a token that also fills up: SigLIP's manner."""
    tokenizer = tiny.piece_tokenizer(["<unk>", "</s>"], [])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def bert_tokenizer():
    """Word pieces whose marks have the ids that Grounding DINO's code knows them by."""
    begin, end, stop, question = modeling_grounding_dino.SPECIAL_TOKENS
    fixed = {0: "[PAD]", 100: "[UNK]", begin: "[CLS]", end: "[SEP]", stop: ".", question: "?"}
    letters = "abcdefghijklmnopqrstuvwxyz"
    own = iter([*dict.fromkeys(WORDS), *letters.replace("a", ""), *(f"##{c}" for c in letters), ",", "-"])
    vocabulary = {}
    for i in range(question + 1):
        text = fixed.get(i) or (next(own, None) if i > end else None) or f"[unused{i}]"
        vocabulary[text] = i
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([AddedToken(fixed[i], special=True, normalized=False) for i in (0, 100, begin, end)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", begin), ("[SEP]", end)])
    return tokenizer


def save(folder, model, tokenizer, picture, **how):
    model.save_pretrained(folder, **how)
    if tokenizer:
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    tiny.write(folder, picture)


def towers(config_class, side, tokens, hidden, text, projection=12):
    shared = {"hidden_size": hidden, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
              "projection_dim": projection}
    return config_class(
        text_config={**shared, "vocab_size": tokens, **text}, projection_dim=projection,
        vision_config={**shared, "image_size": side, "patch_size": 8})


def clip(folder, seed=0, side=32, hidden=16, legacy=False, length=20):
    tokenizer = clip_tokenizer()
    begin, end = (tokenizer.token_to_id(text) for text in ("<|startoftext|>", "<|endoftext|>"))
    config = towers(transformers.CLIPConfig, side, tokenizer.get_vocab_size(), hidden, {
        "max_position_embeddings": length, "bos_token_id": 0 if legacy else begin, "eos_token_id": 2 if legacy else end,
        "pad_token_id": 1})
    picture = {"image_processor_type": "CLIPImageProcessor", "do_center_crop": True,
               "crop_size": {"height": side, "width": side}, "size": {"shortest_edge": side}, "resample": 3,
               "rescale_factor": 1 / 255, "image_mean": CLIP[0], "image_std": CLIP[1]}
    save(folder, tiny.randomise(transformers.CLIPModel(config), seed), tokenizer, picture)


def siglip(folder, seed=0, side=32, hidden=16, length=32):
    tokenizer = end_tokenizer()
    config = towers(transformers.SiglipConfig, side, tokenizer.get_vocab_size(), hidden, {
        "max_position_embeddings": length, "pad_token_id": 1, "bos_token_id": None, "eos_token_id": 1,
        "projection_size": hidden})
    picture = {"image_processor_type": "SiglipImageProcessor", "size": {"height": side, "width": side}, "resample": 3,
               "rescale_factor": 1 / 255, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    save(folder, tiny.randomise(transformers.SiglipModel(config), seed), tokenizer, picture)


def edges(shortest, longest, old):
    """How a checkpoint states them; the first ones had a number each."""
    return {"size": shortest, "max_size": longest} if old else {"size": {"shortest_edge": shortest, "longest_edge": longest}}


def grounding_dino(folder, seed=0, shortest=64, longest=96, queries=24, hidden=32, layers=(1, 2), depths=(1, 1, 1, 1),
                   narrow=8, words=8, old=False):
    tokenizer = bert_tokenizer()
    backbone = transformers.SwinConfig(
        embed_dim=narrow, depths=list(depths), num_heads=[1, 1, 2, 2], window_size=4, image_size=64, patch_size=4, mlp_ratio=2.0,
        out_features=["stage2", "stage3", "stage4"])
    language = transformers.BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=words, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=256)
    config = transformers.GroundingDinoConfig(
        backbone_config=backbone, text_config=language, d_model=hidden, num_queries=queries, encoder_layers=layers[0],
        decoder_layers=layers[1], encoder_ffn_dim=16, decoder_ffn_dim=16, encoder_attention_heads=4,
        decoder_attention_heads=4, disable_custom_kernels=True, use_timm_backbone=False, use_pretrained_backbone=False)
    picture = {"image_processor_type": "GroundingDinoImageProcessor", "resample": 2, "rescale_factor": 1 / 255,
               **edges(shortest, longest, old),
               "image_mean": IMAGENET[0], "image_std": IMAGENET[1]}
    model = tiny.randomise(transformers.GroundingDinoForObjectDetection(config), seed)
    save(folder, model, tokenizer, picture)


def owlv2(folder, seed=0, side=48, hidden=16, length=16, old=False):
    tokenizer = clip_tokenizer(first=("!",))
    begin, end = (tokenizer.token_to_id(text) for text in ("<|startoftext|>", "<|endoftext|>"))
    config = towers(transformers.Owlv2Config, side, tokenizer.get_vocab_size(), hidden, {
        "max_position_embeddings": length, "bos_token_id": begin, "eos_token_id": end, "pad_token_id": 0}, hidden)
    picture = {"image_processor_type": "Owlv2ImageProcessor", "size": side if old else {"height": side, "width": side},
               "resample": 2, "rescale_factor": 1 / 255, "image_mean": CLIP[0], "image_std": CLIP[1]}
    save(folder, tiny.randomise(transformers.Owlv2ForObjectDetection(config), seed), tokenizer, picture)


def square(side, **more):
    return {"size": {"height": side, "width": side}, "resample": 2, "rescale_factor": 1 / 255, "do_normalize": False,
            "image_mean": IMAGENET[0], "image_std": IMAGENET[1], "image_processor_type": "RTDetrImageProcessor", **more}


def names(labels=LABELS):
    return {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}


def rt_detr(folder, seed=0, side=64, queries=16, hidden=16):
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 12, 16], depths=[1, 1, 1, 1], layer_type="basic", out_indices=[2, 3, 4])
    config = transformers.RTDetrConfig(
        backbone_config=backbone, encoder_in_channels=[8, 12, 16], encoder_hidden_dim=hidden, encoder_ffn_dim=24,
        encoder_attention_heads=2, d_model=hidden, num_queries=queries, decoder_in_channels=[hidden] * 3,
        decoder_ffn_dim=24, decoder_layers=2, decoder_attention_heads=2, num_denoising=0, **names())
    save(folder, tiny.randomise(transformers.RTDetrForObjectDetection(config), seed), None, square(side))


def d_fine(folder, seed=0, side=64, queries=16, hidden=16):
    backbone = transformers.HGNetV2Config(
        embedding_size=8, hidden_sizes=[8, 12, 16, 16], stem_channels=[3, 4, 8], stage_in_channels=[8, 8, 12, 16],
        stage_mid_channels=[4, 4, 6, 8], stage_out_channels=[8, 12, 16, 16], stage_num_blocks=[1, 1, 1, 1],
        stage_downsample=[False, True, True, True], stage_light_block=[False, False, True, True],
        stage_kernel_size=[3, 3, 3, 3], stage_numb_of_layers=[2, 2, 2, 2], out_features=["stage2", "stage3", "stage4"])
    config = transformers.DFineConfig(
        backbone_config=backbone, encoder_in_channels=[12, 16, 16], encoder_hidden_dim=hidden, encoder_ffn_dim=24,
        encoder_attention_heads=2, d_model=hidden, num_queries=queries, decoder_in_channels=[hidden] * 3,
        decoder_ffn_dim=24, decoder_layers=2, decoder_attention_heads=2, num_denoising=0, decoder_n_points=[2, 2, 2],
        **names())
    save(folder, tiny.randomise(transformers.DFineForObjectDetection(config), seed), None, square(side))


def deformable_detr(folder, seed=0, shortest=64, longest=96, queries=24, hidden=32, layers=(1, 2), classes=LABELS,
                    two_stage=False, old=False):
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 12, 16], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"])
    config = transformers.DeformableDetrConfig(
        backbone_config=backbone, backbone=None, use_timm_backbone=False, use_pretrained_backbone=False, d_model=hidden,
        num_queries=queries, encoder_layers=layers[0], decoder_layers=layers[1], encoder_ffn_dim=16, decoder_ffn_dim=16,
        encoder_attention_heads=2, decoder_attention_heads=2, disable_custom_kernels=True, two_stage=two_stage,
        two_stage_num_proposals=queries, with_box_refine=two_stage, **names(classes))
    picture = {"image_processor_type": "DeformableDetrImageProcessor", "resample": 2, "rescale_factor": 1 / 255,
               **edges(shortest, longest, old),
               "image_mean": IMAGENET[0], "image_std": IMAGENET[1]}
    model = tiny.randomise(transformers.DeformableDetrForObjectDetection(config), seed)
    # Heads that the decoder shares are refused by safetensors, and published in torch's own files.
    save(folder, model, None, picture, safe_serialization=not two_stage)


def llava_grounding(folder, seed=0, side=64, eye=32, hidden=32, layers=2, published=False):
    """LLaVA-Grounding's layout: one state with the tower and the head in it, marks among the last tokens. The head is a small
    one of ours, or has every part of the published one."""
    from . import llava_grounding as real, openseed, openseed_reference
    tokenizer = tiny.piece_tokenizer(["<unk>", "<s>", "</s>"], [*real.AROUND, real.MARK])
    text = {"vocab_size": tokenizer.get_vocab_size(), "hidden_size": hidden, "intermediate_size": 48,
            "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 4,
            "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": eye, "patch_size": 8, "projection_dim": 16}
    if published:
        head = {"side": side, "queries": 12}
        made = openseed_reference.small(phrase=hidden, **head)
    else:
        head = {"width": hidden, "side": side}
        made = openseed.Small(**head)
    model = real.Model(transformers.LlamaConfig(**text), transformers.CLIPVisionConfig(**vision), -2, made)
    tiny.randomise(model, seed)
    if published:
        openseed_reference.calm(made)
    with torch.no_grad():
        # Answers that end, and speak of something.
        words = model.language.lm_head.weight
        words[tokenizer.token_to_id(real.MARK)] *= 5
        words[2] *= 4
    old = (("tower.", real.TOWER), ("projector.", "model.mm_projector."), ("head.", "seg_model.model."),
           ("language.model.", "model."), ("language.lm_head.", "lm_head."))
    state = {}
    for name, tensor in model.state_dict().items():
        own, theirs = next(pair for pair in old if name.startswith(pair[0]))
        state[theirs + name[len(own):]] = tensor.contiguous()
    if published:
        torch.save(openseed_reference.as_published(state), folder / "pytorch_model-00001-of-00001.bin")
    else:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({
        **text, "model_type": "llava", "mm_vision_tower": "openai/clip-vit-large-patch14", "mm_vision_select_layer": -2,
        "groundd_openseed" if published else "groundd_head": head}))
    (folder / "vision_config.json").write_text(json.dumps(vision))
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    tiny.write(folder, {
        "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": eye}, "resample": 3,
        "do_center_crop": True, "crop_size": {"height": eye, "width": eye}, "rescale_factor": 1 / 255,
        "image_mean": CLIP[0], "image_std": CLIP[1]})
