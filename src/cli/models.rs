//! `groundd models`: what is here, what it can do, and whether it is whole.

use std::path::Path;

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
            Err(error) => format!("{:12} unusable: {error}\n", folder.display()),
        };
    }
    if !text.is_empty() {
        return say(&text);
    }
    let looked: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    let message = format!("no models in {}; set GROUNDD_MODELS to the folder that holds them", looked.join(", "));
    Err(Failure::new(Exit::Config, message))
}

fn info(name: &Path) -> Result<(), Failure> {
    let m = find(name)?;
    let mut text = format!(
        "name        {}\nversion     {}\nfamily      {}\nmethods     {}\nhash        {}\nlicence     {}\nprovenance  {}\n\
         canvas      {}x{} ({})\nfolder      {}\n",
        m.name,
        m.version,
        m.family,
        methods(&m),
        m.hash8(),
        m.licence,
        m.provenance,
        m.canvas().width,
        m.canvas().height,
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
