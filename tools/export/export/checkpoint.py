"""A checkpoint's folder: its configuration, card, tokenizer and picture settings."""

import json
from pathlib import Path

from .errors import Refused


class Source:
    """What a checkpoint says of itself, besides its weights."""

    def __init__(self, folder, reads=True, eye=None):
        self.folder = Path(folder)
        self.config = self.json("config.json", "a checkpoint folder as `hf download` leaves it has one")
        whose = "the model's repository"
        if tower := eye and self.config.get(eye):
            whose = f"the repository `{tower}`, which config.json names as `{eye}`"
        self.preprocessor = self.json("preprocessor_config.json", f"take it from {whose}")
        self.generation = self.optional("generation_config.json")
        tokenizer = self.json(
            "tokenizer.json", "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes it") if reads else {}
        self.added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}
        self.vocabulary = tokenizer.get("model", {}).get("vocab", {})

    def json(self, name, remedy):
        path = self.folder / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except OSError as e:
            raise Refused(f"{path}: cannot be read ({e.strerror}); {remedy}") from e
        except ValueError as e:
            raise Refused(f"{path}: is not JSON ({e}); {remedy}") from e

    def optional(self, name):
        return self.json(name, "") if (self.folder / name).is_file() else {}

    def card(self):
        """The front matter of README.md, as far as it is plain `key: value`."""
        path = self.folder / "README.md"
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        if not text.startswith("---"):
            return {}
        lines = text.split("\n---", 1)[0].splitlines()[1:]
        pairs = (line.split(":", 1) for line in lines if ":" in line and not line.startswith((" ", "-")))
        return {key.strip(): value.strip().strip("'\"") for key, value in pairs}

    def licence(self):
        card = self.card()
        found = card.get("license_name") if card.get("license") in (None, "", "other") else card["license"]
        if not found:
            raise Refused(f"{self.folder / 'README.md'}: names no licence; pass --licence, as in --licence Apache-2.0")
        return found

    def token(self, text, where="tokenizer.json"):
        found = self.added.get(text, self.vocabulary.get(text) if isinstance(self.vocabulary, dict) else None)
        if found is None:
            raise Refused(f"{self.folder / where}: has no token `{text}`; this tokenizer is not this family's")
        return found

    def named_tokens(self, names):
        """Ids of special tokens, those left out that this checkpoint does not know."""
        return {name: self.added[text] for name, text in names.items() if text in self.added}

    def run(self, name, pattern, count):
        """First id and number of tokens that must follow one another, as location tokens do."""
        first = self.token(pattern.format(0))
        for i in range(count):
            if self.token(pattern.format(i)) != first + i:
                raise Refused(f"{self.folder / 'tokenizer.json'}: `{pattern.format(i)}` should have id {first + i}")
        return {f"{name}_first": first, f"{name}_count": count}

    def ends(self):
        """Every id that ends an answer."""
        text = self.config.get("text_config") or {}
        for found in (self.generation.get("eos_token_id"), self.config.get("eos_token_id"), text.get("eos_token_id")):
            if found is not None:
                return found if isinstance(found, list) else [found]
        raise Refused(f"{self.folder / 'generation_config.json'}: no eos_token_id here or in config.json")

    def normalisation(self):
        """How a picture's bytes become numbers: value * scale, less mean, over std; and how it is resized."""
        picture = self.preprocessor
        kinds = {2: "bilinear", 3: "bicubic"}
        resample, scale = picture.get("resample", 3), picture.get("rescale_factor", 1 / 255)
        if resample not in kinds or abs(scale * 255 - 1) > 1e-6:
            raise Refused(f"{self.folder / 'preprocessor_config.json'}: `resample` {resample} and `rescale_factor` {scale}; the daemon knows "
                          "2 (bilinear) and 3 (bicubic), and 1/255")
        try:
            return {"resample": kinds[resample], "scale": scale,
                    "mean": [float(v) for v in picture["image_mean"]], "std": [float(v) for v in picture["image_std"]]}
        except KeyError as e:
            raise Refused(f"{self.folder / 'preprocessor_config.json'}: {e} is missing or of an unknown kind") from e
