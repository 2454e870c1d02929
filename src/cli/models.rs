//! `groundd models`: what is here, what it can do, and whether it is whole.

use std::path::{Path, PathBuf};

use tracing::warn;

use super::{Exit, Failure, args, model_folders, progress, pull, say};
use crate::ground::{
    self, GroundError,
    manifest::{self, Manifest},
};

pub(super) fn run(args: &args::Models) -> Result<(), Failure> {
    match &args.command {
        args::ModelsCommand::List => list(),
        args::ModelsCommand::Info(model) => info(&model.name),
        args::ModelsCommand::Verify(model) => verify(&model.name),
        args::ModelsCommand::Pull(pull) => pull::run(pull),
    }
}

fn list() -> Result<(), Failure> {
    let folders = model_folders();
    let mut text = String::new();
    for (folder, manifest) in manifest::list(&folders) {
        text += &match manifest {
            Ok(m) => format!(
                "{:12} {:8} {:8} {:>7.1} MB  {:24} {}\n",
                m.name,
                m.version,
                m.family,
                m.bytes() as f64 / 1e6,
                methods(&m),
                folder.display()
            ),
            Err(error) => {
                let reason = Failure::from(GroundError::from(error)).message;
                format!("{:12} unusable: {reason}\n", folder.display())
            }
        };
    }
    if !text.is_empty() {
        // Models were found elsewhere, so that nothing else would say that this one was not looked into.
        if let Some(folder) = folders.iter().find(|folder| !folder.is_dir()) {
            warn!("{} is no folder; does GROUNDD_MODELS name the right one?", folder.display());
        }
        return say(&text);
    }
    Err(Failure::new(Exit::Config, none_in(&folders)))
}

fn none_in(folders: &[PathBuf]) -> String {
    let remedy = "set GROUNDD_MODELS to the folder that holds them, or fetch one by `groundd models pull`";
    if folders.is_empty() {
        return format!("no models: there is no folder of models in any of the usual places; {remedy}");
    }
    let place = |folder: &PathBuf| {
        let note = if folder.is_dir() { "" } else { " (no folder)" };
        format!("{}{note}", folder.display())
    };
    format!("no models in {}; {remedy}", folders.iter().map(place).collect::<Vec<_>>().join(", "))
}

fn info(name: &Path) -> Result<(), Failure> {
    let m = find(name)?;
    let canvases: Vec<_> = m.canvases().iter().map(|size| format!("{}x{}", size.width, size.height)).collect();
    let mut text = format!(
        "name        {}\nversion     {}\nfamily      {}\nmethods     {}\nhash        {}\nlicence     {}\nprovenance  {}\n\
         canvas      {} ({})\nfolder      {}\n",
        m.name,
        m.version,
        m.family,
        methods(&m),
        m.hash8(),
        m.licence,
        m.provenance,
        canvases.join(", "),
        m.input.fit.name(),
        m.dir.display()
    );
    for file in &m.files {
        text += &format!(
            "file        {:12} {:>10} bytes  sha256 {}  {}\n",
            file.role,
            file.bytes,
            if file.sha256.is_empty() { "not known: no model.toml" } else { &file.sha256 },
            file.path.display()
        );
    }
    say(&text)
}

fn verify(name: &Path) -> Result<(), Failure> {
    let manifest = find(name)?;
    if manifest.is_derived() {
        let text = "there is no model.toml, so nothing says what its files should be; `groundd models pull` writes one";
        return Err(Failure::new(Exit::Config, format!("{}: {text}", manifest.dir.display())));
    }
    let bar = progress::bytes(manifest.bytes(), format!("verifying {}", manifest.name));
    let result = manifest.verify(|bytes| bar.inc(bytes));
    bar.finish_and_clear();
    result.map_err(|e| Failure::from(GroundError::from(e)))?;
    say(&format!("{}: {} files, all as their SHA-256 says\n", manifest.name, manifest.files.len()))
}

fn find(name: &Path) -> Result<Manifest, Failure> {
    Ok(ground::find(name, &model_folders())?)
}

fn methods(manifest: &Manifest) -> String {
    manifest.methods.iter().map(|m| m.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_no_models_are_is_said_of_every_folder_and_of_none() {
        assert!(none_in(&[]).starts_with("no models: there is no folder"), "{}", none_in(&[]));
        let folder = tempfile::tempdir().unwrap();
        let (here, gone) = (folder.path().to_owned(), folder.path().join("gone"));
        let text = none_in(&[here.clone(), gone.clone()]);
        assert!(text.contains(&format!("in {}, {} (no folder);", here.display(), gone.display())), "{text}");
    }
}
