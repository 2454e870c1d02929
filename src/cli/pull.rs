//! `groundd models pull`: from a name to a model that the daemon finds.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, IsTerminal, Write},
    path::{Path, PathBuf},
};

use indicatif::ProgressBar;
use tracing::{info, warn};

use super::{Exit, Failure, args, block_on, model_folders, progress, say, user_models};
use crate::{
    ground::{
        GroundError,
        manifest::{Manifest, published},
    },
    hub::{
        Catalog, Digest, Hub, HubError, Kind, Occupant, Plan, Progress, Wanted, error::Fault, install::Staged, origin,
    },
};

pub(super) fn run(args: &args::Pull) -> Result<(), Failure> {
    let catalog = Catalog::load(&model_folders())?;
    let Some(name) = &args.name else { return list(&catalog) };
    let wanted = catalog.resolve(name, args.weights)?;
    let folder = args.into.clone().map_or_else(target, Ok)?;
    let place = folder.join(&wanted.name);
    let occupant = origin::occupant(&place, &wanted.reference)?;
    let hub = Hub::from_env()?;
    let bar = progress::bytes(0, "");
    let result = block_on(async {
        let plan = hub.plan(&wanted, &mut |event| show(&bar, event)).await?;
        let missing = hub.missing(&plan);
        describe(&wanted, &plan, missing, &place, &occupant)?;
        let loses = matches!(occupant, Occupant::Changed(_));
        if (missing > 0 || loses) && !args.yes {
            confirm(loses)?;
        }
        hub.prepare(&plan, &folder, &wanted.name)?;
        bar.set_length(plan.bytes());
        let fetched = hub.fetch(&plan, &mut |event| show(&bar, event)).await;
        bar.finish_and_clear();
        fetched?;
        let staged = hub.stage(&plan, &folder, &wanted.name)?;
        let manifest = vouch(&staged, &wanted, &plan)?;
        Ok::<_, Failure>((manifest, staged.commit()?))
    });
    bar.finish_and_clear();
    let (manifest, place) = result?;
    say(&format!(
        "{}: {} files, all as their hashes say, in {}\nrun it: groundd watch URI --query TEXT --model {}\n",
        manifest.name,
        manifest.files.len(),
        place.display(),
        shown_name(&place),
    ))
}

/// The name under which the model is found, or its folder where it would not be.
fn shown_name(place: &Path) -> String {
    let found = model_folders().iter().any(|folder| place.parent().is_some_and(|parent| same(folder, parent)));
    let name = place.file_name().filter(|_| found).map(PathBuf::from);
    name.unwrap_or_else(|| place.to_owned()).display().to_string()
}

fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn list(catalog: &Catalog) -> Result<(), Failure> {
    let mut text = String::new();
    for entry in &catalog.models {
        let methods: Vec<_> = entry.methods.iter().map(|method| method.name()).collect();
        text += &format!(
            "{:18} {:11} {:12} about {:>5} MB  {:22} {}\n",
            entry.name,
            entry.family,
            methods.join(", "),
            entry.megabytes,
            entry.licence,
            entry.repository
        );
    }
    say(&text)
}

/// The folder that pulled models go to: the configured one, the service's if it can be written, else the user's own.
fn target() -> Result<PathBuf, Failure> {
    if let Some(configured) = std::env::var_os("GROUNDD_MODELS").filter(|v| !v.is_empty()) {
        return Ok(configured.into());
    }
    let service = Path::new("/var/lib/groundd");
    let writable = rustix::fs::access(service, rustix::fs::Access::WRITE_OK).is_ok();
    let found = writable.then(|| service.join("models")).or_else(user_models);
    let message = "nowhere to put a model: there is no home directory; pass --into or set GROUNDD_MODELS";
    found.ok_or_else(|| Failure::new(Exit::Config, message))
}

/// What is going to happen, on stderr.
fn describe(wanted: &Wanted, plan: &Plan, missing: u64, place: &Path, occupant: &Occupant) -> Result<(), Failure> {
    let licence = plan.licence.as_deref().unwrap_or("not named by the repository; look at its page before you use it");
    let here =
        if missing == plan.bytes() { String::new() } else { format!(", {} of them to fetch", megabytes(missing)) };
    let needs = wanted.needs.as_ref().map(|needs| format!("  needs       {needs}\n")).unwrap_or_default();
    let vouched = match wanted.unpinned {
        0 => String::new(),
        count => format!(
            "  warning     the catalog's hashes of {count} files are of other weights than --weights asks for: what comes \
             is compared only with what the server says\n"
        ),
    };
    let replaces = match occupant {
        Occupant::Nobody | Occupant::Pulled => String::new(),
        Occupant::Changed(reason) => format!("  replaces    {}, though {reason}\n", place.display()),
    };
    let text = format!(
        "{}\n  repository  {} ({})\n  licence     {licence}\n  size        {} in {} files{here}\n{needs}{vouched}  into        \
         {}\n{replaces}",
        wanted.name,
        plan.reference,
        &plan.commit[..8],
        megabytes(plan.bytes()),
        plan.files.len(),
        place.display(),
    );
    let lost = |e: io::Error| Failure::new(Exit::Internal, format!("cannot write to stderr: {e}"));
    io::stderr().lock().write_all(text.as_bytes()).map_err(lost)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Asks whoever sits there whether licence and size are agreeable, and that what was changed in the model's place is lost.
fn confirm(loses: bool) -> Result<(), Failure> {
    let refuse = |message: String| Err(Failure::new(Exit::Usage, message));
    let (subject, question) = if loses {
        ("licence, size and what is replaced", "Fetch and replace it")
    } else {
        ("licence and size", "Fetch it")
    };
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return refuse(format!("nobody is here to agree to {subject}; pass --yes to agree to them beforehand"));
    }
    let mut answer = String::new();
    let asked = write!(io::stderr(), "{question}? [y/N] ").and_then(|()| io::stdin().lock().read_line(&mut answer));
    match asked {
        Ok(_) if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) => Ok(()),
        _ => refuse("nothing was fetched".to_owned()),
    }
}

fn show(bar: &ProgressBar, event: Progress<'_>) {
    match event {
        Progress::File(file, here) => {
            bar.set_message(file.path.clone());
            bar.inc(here);
            info!(file = file.path, bytes = file.bytes, here, "fetching");
        }
        Progress::Bytes(count) => bar.inc(count),
        Progress::Lost(count) => bar.set_position(bar.position().saturating_sub(count)),
        Progress::Waiting(file) => {
            bar.set_message(format!("waiting: {}", file.path));
            info!(file = file.path, "another process is fetching this file; waiting for it");
        }
        Progress::Retry(reason, seconds) => warn!("{reason}; trying again in {seconds} s"),
    }
}

/// Makes sure that the staged folder is a model, with a manifest that vouches for every file.
fn vouch(staged: &Staged, wanted: &Wanted, plan: &Plan) -> Result<Manifest, Failure> {
    let manifest = match plan.kind {
        Kind::Published => {
            let known: BTreeMap<_, _> = plan
                .files
                .iter()
                .filter_map(|file| match &file.digest {
                    Digest::Sha256(hash) => Some((file.path.clone(), hash.clone())),
                    Digest::Git(_) => None,
                })
                .collect();
            let facts = published::Facts {
                name: wanted.name.clone(),
                version: plan.commit[..8].to_owned(),
                licence: plan.licence.clone().unwrap_or_else(|| "not named by the repository".to_owned()),
                provenance: format!("{}, commit {}", plan.reference, plan.commit),
            };
            published::adopt(staged.path(), facts, &known)
        }
        Kind::Exported => Manifest::load(staged.path()).and_then(|manifest| manifest.verify(|_| ()).map(|()| manifest)),
    };
    // The staging folder is gone once this has failed; what the user can look at is the repository.
    manifest.map_err(|e| {
        let text = Failure::from(GroundError::from(e)).message;
        let text = text.replace(&format!("{}/", staged.path().display()), "");
        Failure::new(Exit::Config, format!("{}: {text}", plan.reference))
    })
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        let exit = match error.fault() {
            Fault::Usage => Exit::Usage,
            Fault::Outside => Exit::Unavailable,
            Fault::Setup => Exit::Config,
        };
        Self::of(exit, &error)
    }
}
