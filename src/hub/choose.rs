//! Which of a repository's files a model needs. Pure: names in, names out.

use std::{collections::BTreeSet, path::Path};

use super::{Wanted, origin, plan::Kind};
use crate::types::published::{CONFIGURATION, ENCODER, ROLES, VOCABULARY, Weights, is_data_of};

/// A folder that says everything about itself, as `tools/export` makes it.
pub(super) const MANIFEST: &str = "model.toml";
/// What a repository holds for its own sake, and a note of whoever pulled it before it was published.
const IDLE: [&str; 4] = ["README.md", ".gitattributes", ".gitignore", origin::FILE_NAME];

/// The files to fetch, in the order to fetch them, or why there is nothing to run.
pub(super) fn files(listed: &[String], wanted: &Wanted) -> Result<(Kind, Vec<String>), String> {
    let names: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
    let kind = if names.contains(MANIFEST) { Kind::Exported } else { Kind::Published };
    if !wanted.pins.is_empty() {
        let missing: Vec<_> =
            wanted.pins.iter().map(|p| p.path.as_str()).filter(|path| !names.contains(path)).collect();
        if !missing.is_empty() {
            return Err(format!("the catalog names files that are not there any more: {}", missing.join(", ")));
        }
        return Ok((kind, wanted.pins.iter().map(|pin| pin.path.clone()).collect()));
    }
    let files = match kind {
        Kind::Exported => names.iter().filter(|name| !IDLE.contains(name)).map(|name| (*name).to_owned()).collect(),
        Kind::Published => published(&names, wanted)?,
    };
    Ok((kind, files))
}

fn published(names: &BTreeSet<&str>, wanted: &Wanted) -> Result<Vec<String>, String> {
    let is_checkpoint = names.iter().any(|name| is(name, "safetensors") || is(name, "bin"));
    let has_graphs = names.iter().any(|name| is(name, "onnx"));
    if !has_graphs && is_checkpoint {
        return Err(
            "it holds a checkpoint, not ONNX graphs: fetch it by other means, and let tools/export turn it into a \
                    folder that runs here"
                .to_owned(),
        );
    }
    let mut files: Vec<String> =
        CONFIGURATION.iter().filter(|name| names.contains(**name)).map(|n| (*n).to_owned()).collect();
    for needed in [CONFIGURATION[0], VOCABULARY] {
        if !names.contains(needed) {
            return Err(format!("it has no {needed}: this is not an export as published for transformers.js"));
        }
    }
    files.push(VOCABULARY.to_owned());
    let has = |role: &str| Weights::ALL.iter().any(|form| names.contains(form.graph(role).as_str()));
    let encoder = has(ENCODER).then_some(ENCODER);
    for role in ROLES.into_iter().chain(encoder) {
        let graph = graph(names, wanted, role)?;
        files.extend(names.iter().filter(|name| is_data_of(name, &graph)).map(|name| (*name).to_owned()));
        files.push(graph);
    }
    Ok(files)
}

fn is(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

/// The file of a role's graph in the form that is wanted, or in the most exact there is.
fn graph(names: &BTreeSet<&str>, wanted: &Wanted, role: &str) -> Result<String, String> {
    let there: Vec<Weights> =
        Weights::ALL.into_iter().filter(|form| names.contains(form.graph(role).as_str())).collect();
    let form = match wanted.weights.get(role).copied().or(wanted.form) {
        Some(form) => there.contains(&form).then_some(form),
        None => there.first().copied(),
    };
    form.map(|form| form.graph(role)).ok_or_else(|| {
        let forms: Vec<_> = there.iter().map(|form| form.name()).collect();
        match (wanted.weights.get(role).copied().or(wanted.form), forms.as_slice()) {
            (Some(form), [_, ..]) => {
                format!("it has no {role} of {}; it has: {}. Choose one by --weights", form.name(), forms.join(", "))
            }
            _ => format!("it has no {}: no model of this kind runs here", Weights::Fp32.graph(role)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Catalog, catalog::Pin};

    fn wanted(form: Option<Weights>) -> Wanted {
        Catalog::default().resolve("a/b", form).unwrap()
    }

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    const FLORENCE: [&str; 14] = [
        ".gitattributes",
        "README.md",
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "vocab.json",
        "onnx/decoder_model.onnx",
        "onnx/decoder_model_merged.onnx",
        "onnx/decoder_model_merged_q4.onnx",
        "onnx/embed_tokens.onnx",
        "onnx/embed_tokens.onnx_data",
        "onnx/encoder_model.onnx",
        "onnx/vision_encoder_fp16.onnx",
    ];

    #[test]
    fn a_published_export_is_taken_whole_and_once() {
        let (kind, files) = files(&list(&FLORENCE), &wanted(None)).unwrap();
        assert_eq!(kind, Kind::Published);
        assert_eq!(
            files,
            [
                "config.json",
                "generation_config.json",
                "preprocessor_config.json",
                "tokenizer.json",
                "onnx/vision_encoder_fp16.onnx",
                "onnx/embed_tokens.onnx_data",
                "onnx/embed_tokens.onnx",
                "onnx/decoder_model_merged.onnx",
                "onnx/encoder_model.onnx",
            ]
        );
        let mut one = wanted(None);
        one.weights.insert("decoder_model_merged".into(), Weights::Q4);
        assert!(
            super::files(&list(&FLORENCE), &one).unwrap().1.contains(&"onnx/decoder_model_merged_q4.onnx".to_owned())
        );
    }

    #[test]
    fn what_cannot_run_here_says_why() {
        for (names, form, words) in [
            (&["config.json", "model.safetensors"][..], None, "tools/export"),
            (&["tokenizer.json", "onnx/model.onnx"], None, "config.json"),
            (&["config.json", "tokenizer.json", "onnx/model.onnx"], None, "vision_encoder.onnx"),
            (&FLORENCE, Some(Weights::Q4), "no vision_encoder of q4; it has: fp16"),
            (&[], None, "config.json"),
        ] {
            let error = files(&list(names), &wanted(form)).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_folder_with_a_manifest_is_taken_as_it_is_and_pins_are_all_there_is() {
        let names = list(&["model.toml", "a.onnx", "tokenizer.json", "README.md", origin::FILE_NAME]);
        let expected = (Kind::Exported, list(&["a.onnx", "model.toml", "tokenizer.json"]));
        assert_eq!(files(&names, &wanted(None)).unwrap(), expected);
        let pin = |path: &str| Pin { path: path.to_owned(), bytes: None, sha256: None };
        let pinned = |path| Wanted { pins: vec![pin(path)], ..wanted(None) };
        assert_eq!(files(&names, &pinned("a.onnx")).unwrap().1, ["a.onnx"]);
        assert!(files(&names, &pinned("gone.onnx")).unwrap_err().contains("gone.onnx"));
    }
}
