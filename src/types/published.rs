//! Where the files of an exported model lie, as exports published for transformers.js lay them out: the configuration at
//! the top, graphs in `onnx/`, the form of their weights in a suffix.
//!
//! Names after `session_config.js`, `utils/dtypes.js` and `utils/model-loader.js` of transformers.js 4.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What describes a model. Of the last two one will do: newer checkpoints have only the second.
pub const CONFIGURATION: [&str; 4] =
    ["config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"];
/// Its words.
pub const VOCABULARY: &str = "tokenizer.json";
/// The folder with the graphs.
pub const GRAPHS: &str = "onnx";
/// The graphs every model has.
pub const ROLES: [&str; 3] = ["vision_encoder", "embed_tokens", "decoder_model_merged"];
/// The graph that models with an encoder have besides.
pub const ENCODER: &str = "encoder_model";

/// The longest name that a model's folder may have.
pub const LONGEST_NAME: usize = 64;

/// Whether a model may be called so in messages; a folder's name begins with no `.` besides.
pub fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=LONGEST_NAME).contains(&text.len()) && text.chars().all(plain)
}

/// Whether this is a SHA-256 as manifests and catalogs write it.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The folder's name for a repository's model that has no other: `owner--name`. One that is too long ends in its hash
/// instead, so that two that begin alike stay two.
pub fn folder(repository: &str) -> String {
    let whole = repository.replace('/', "--");
    if whole.len() <= LONGEST_NAME {
        return whole;
    }
    let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(whole.as_bytes())[..4]);
    let beginning: String = whole.chars().take(LONGEST_NAME - 1 - hash.len()).collect();
    format!("{beginning}-{hash}")
}

/// The form of a graph's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// Single precision.
    Fp32,
    /// Half precision.
    Fp16,
    /// Eight bits, quantised as the exporter does by default.
    Q8,
    /// Eight bits, signed.
    Int8,
    /// Eight bits, unsigned.
    Uint8,
    /// Four bits in blocks, arithmetic in half precision.
    Q4f16,
    /// Four bits in blocks.
    Q4,
    /// Four bits in blocks, as bitsandbytes has them.
    Bnb4,
}

impl Weights {
    /// Every form, the most exact first.
    pub const ALL: [Self; 8] =
        [Self::Fp32, Self::Fp16, Self::Q8, Self::Int8, Self::Uint8, Self::Q4f16, Self::Q4, Self::Bnb4];

    /// The form's name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Q8 => "q8",
            Self::Int8 => "int8",
            Self::Uint8 => "uint8",
            Self::Q4f16 => "q4f16",
            Self::Q4 => "q4",
            Self::Bnb4 => "bnb4",
        }
    }

    /// The path of a graph of this form, below the model's folder.
    pub fn graph(self, role: &str) -> String {
        let suffix = match self {
            Self::Fp32 => String::new(),
            Self::Q8 => "_quantized".to_owned(),
            other => format!("_{}", other.name()),
        };
        format!("{GRAPHS}/{role}{suffix}.onnx")
    }
}

/// Whether the file at `path` holds weights of the graph at `graph`: `x.onnx_data`, `x.onnx_data_1`, …, `x.onnx.data`.
pub fn is_data_of(path: &str, graph: &str) -> bool {
    let number = |rest: &str| rest.strip_prefix('_').is_some_and(|n| n.parse::<u16>().is_ok());
    let Some(rest) = path.strip_prefix(graph) else { return false };
    rest == ".data" || rest.strip_prefix("_data").is_some_and(|rest| rest.is_empty() || number(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphs_and_their_data_are_told_apart_by_name() {
        let graph = Weights::Q4.graph("embed_tokens");
        assert_eq!(graph, "onnx/embed_tokens_q4.onnx");
        assert_eq!(Weights::Q8.graph("embed_tokens"), "onnx/embed_tokens_quantized.onnx");
        assert_eq!(Weights::Fp32.graph("embed_tokens"), "onnx/embed_tokens.onnx");
        for (path, is) in [
            ("onnx/embed_tokens_q4.onnx_data", true),
            ("onnx/embed_tokens_q4.onnx_data_12", true),
            ("onnx/embed_tokens_q4.onnx.data", true),
            ("onnx/embed_tokens_q4.onnx_data_x", false),
            ("onnx/embed_tokens_q4.onnx.data_1", false),
            ("onnx/embed_tokens_q4.onnx", false),
            ("onnx/embed_tokens_q4f16.onnx_data", false),
        ] {
            assert_eq!(is_data_of(path, &graph), is, "{path}");
        }
    }
}
