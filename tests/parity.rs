//! The daemon's runtime against transformers, on what `python -m export parity` made: `make parity`.

use std::{env, fs, path::PathBuf};

use crate::{
    support::vlm::{Model, Reference},
    vlm::follow_in,
};

#[test]
#[ignore = "needs the models and answers that `make parity` makes"]
fn every_kind_of_model_says_what_its_reference_says() {
    let root = PathBuf::from(env::var_os("GROUNDD_PARITY").expect("`make parity` names the folder"));
    let mut folders: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.join("cases.json").is_file());
    folders.sort();
    assert!(!folders.is_empty(), "{} holds no models", root.display());
    for folder in folders {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let reference = Reference::at(&folder);
        let sizes = reference.cases.iter().filter(|case| case.steps >= 64).count();
        assert!(sizes >= 8, "{name}: only {sizes} pictures are followed for 64 steps");
        let dir = folder.join("model");
        // Half precision rounds otherwise when a prompt is read in pieces; there ONNX Runtime in Python is to be met to the bit.
        let exact = ["-half", "-int8", "-int4"].iter().all(|form| !name.contains(form));
        let mut model = if exact { Model::warmed(&dir, |_, engine| Box::new(engine)) } else { Model::at(&dir) };
        follow_in(&name, &mut model, &reference, &root);
    }
}
