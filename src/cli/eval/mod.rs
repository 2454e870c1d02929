//! `groundd eval`: how good the methods of a model are on a data set, and what they cost.

mod examples;
mod ink;
mod plot;
mod report;
mod table;
mod trial;

use std::{collections::BTreeMap, fs, path::Path};

use tracing::{info, warn};

use self::{
    examples::Shown,
    report::{CostReport, Data, MethodReport, Model, Report},
    trial::{Reply, Said, Trial},
};
use super::{Exit, Failure, args, model_folders, outputs, progress, say};
use crate::{
    eval::{Answer, Cost, Dataset, DatasetError, Entry, Options, PictureError, Scorer, dataset},
    ground::{self, ModelConfig, ModelInfo, methods::zoom::ZoomConfig},
    ingest,
    types::{Method, ScoreKind},
};

/// Different refusals that are kept apart; a model that words each one differently must not fill memory.
const REASONS: usize = 1000;

/// Asked for with every box it could give, a ranking has all of them.
const EVERY_BOX: f32 = 0.0;

pub(super) fn run(args: &args::Eval) -> Result<(), Failure> {
    check_outputs(args)?;
    let spinner = progress::spinner("reading the data set");
    let dataset = dataset::load(&args.dataset, &options(args))?;
    spinner.finish_and_clear();
    dataset.notes.iter().for_each(|note| warn!("{note}"));
    ingest::init()?;
    let config = ModelConfig {
        // By passes alone, so that what is found does not depend on how fast this machine is.
        zoom: ZoomConfig {
            passes: args.zoom_passes,
            milliseconds: ZoomConfig::TIMELESS,
            exhaustive: args.zoom_exhaustive,
        },
        ..args.model.config()
    };
    let folders = model_folders();
    let filters = ground::find(&config.path, &folders)?.scores.is_some() || args.threshold.is_some();
    let grounder = ground::load(&config, &folders)?;
    let info = grounder.describe();
    let mut runs: Vec<Run> = methods(&args.methods, &info)?.into_iter().map(Run::new).collect();
    let how = How {
        threshold: args.threshold,
        rank: match (args.no_ap, filters) {
            (true, _) => Rank::Not,
            // Where nothing is filtered, what is reported is all there is.
            (false, false) => Rank::Reported,
            (false, true) => Rank::Again,
        },
        keep: args.examples.is_some(),
    };
    let unreadable = ask(&dataset, Trial::new(grounder), &mut runs, &how)?;
    let report = Report {
        v: 1,
        groundd: env!("CARGO_PKG_VERSION"),
        data: Data::of(&dataset, unreadable),
        model: Model::of(&info, args.model.threads, args.model.detail),
        threshold: args.threshold,
        zoom_passes: (!args.zoom_exhaustive).then_some(args.zoom_passes),
        methods: runs.iter().map(Run::report).collect(),
    };
    // The files first: a reader of the table may leave before its end. What could not be written takes no table along.
    let written = write_files(args, &dataset, &runs, &report);
    let told = say(&table::render(&report));
    written.and(told)
}

fn options(args: &args::Eval) -> Options {
    Options {
        images: args.images.clone(),
        instances: args.instances.clone(),
        split: args.split.clone(),
        queries: args.queries.clone(),
        limit: args.limit,
    }
}

/// Whether everything that is wanted can be written.
fn check_outputs(args: &args::Eval) -> Result<(), Failure> {
    if let Some(path) = &args.plot
        && !path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"))
    {
        return Err(outputs::unwritable("--plot", path, &"it is a PNG and its name should end with .png"));
    }
    outputs::check(&[("--json", args.json.as_deref()), ("--plot", args.plot.as_deref())])?;
    match &args.examples {
        Some(folder) => fs::create_dir_all(folder).map_err(|e| outputs::unwritable("--examples", folder, &e)),
        None => Ok(()),
    }
}

/// The methods to try: those that are named, all of which the model must have, or all it has.
fn methods(wanted: &[Method], info: &ModelInfo) -> Result<Vec<Method>, Failure> {
    if let Some(method) = wanted.iter().find(|method| !info.methods.contains(method)) {
        let can: Vec<_> = info.methods.iter().map(|m| m.name()).collect();
        let message = format!(
            "--methods: {} cannot do `{method}`; it can do: {}. Leave {method} out, or choose another --model",
            info.name,
            can.join(", ")
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    let mut methods = Vec::new();
    for method in if wanted.is_empty() { &info.methods } else { wanted } {
        if !methods.contains(method) {
            methods.push(*method);
        }
    }
    Ok(methods)
}

/// Where the ranking for average precision comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rank {
    Not,
    Reported,
    Again,
}

struct How {
    threshold: Option<f32>,
    rank: Rank,
    /// Whether answers are kept to be drawn.
    keep: bool,
}

/// One method's way through the data set.
struct Run {
    method: Method,
    scorer: Scorer,
    cost: Cost,
    kinds: Vec<ScoreKind>,
    refused: BTreeMap<String, usize>,
    shown: Vec<Shown>,
}

/// Asks everything of every image that can be read. Returns how many could not.
fn ask(dataset: &Dataset, mut trial: Trial, runs: &mut [Run], how: &How) -> Result<usize, Failure> {
    let total = dataset.entries.len() * runs.len();
    let bar = progress::items(total as u64, "asking");
    let mut unreadable: Vec<PictureError> = Vec::new();
    for (i, entry) in dataset.entries.iter().enumerate() {
        // Only the headers were read before. One image that breaks off should not take hours of answers along.
        let pixels = match entry.picture.read() {
            Ok(pixels) => pixels,
            Err(error) => {
                bar.suspend(|| warn!("left out: {error}"));
                unreadable.push(error);
                bar.inc(runs.len() as u64);
                continue;
            }
        };
        let look = trial.look(entry, &pixels)?;
        if i == unreadable.len() {
            // The first time is slower, for memory is allocated.
            for run in &*runs {
                trial.ask(entry, &look, run.method, how.threshold)?;
            }
        }
        // A text that is new is encoded once for all methods, and the first one pays: they take turns.
        let (later, earlier) = runs.split_at_mut(i % runs.len());
        for run in earlier.iter_mut().chain(later) {
            let reply = trial.ask(entry, &look, run.method, how.threshold)?;
            let ranking = match how.rank {
                Rank::Again => Some(trial.ask(entry, &look, run.method, Some(EVERY_BOX))?),
                Rank::Not | Rank::Reported => None,
            };
            run.take(i, entry, reply, ranking, how);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    match unreadable.first() {
        Some(error) if unreadable.len() == dataset.entries.len() => Err(Failure::of(Exit::Config, error)),
        _ => Ok(unreadable.len()),
    }
}

impl Run {
    fn new(method: Method) -> Self {
        let (scorer, cost) = (Scorer::default(), Cost::default());
        Self { method, scorer, cost, kinds: Vec::new(), refused: BTreeMap::new(), shown: Vec::new() }
    }

    fn take(&mut self, i: usize, entry: &Entry, reply: Reply, ranking: Option<Reply>, how: &How) {
        self.cost.add(reply.sample);
        for kind in reply.kinds.iter().chain(ranking.iter().flat_map(|ranking| &ranking.kinds)) {
            if !self.kinds.contains(kind) {
                self.kinds.push(*kind);
            }
        }
        let mut ranked = ranking.map(|ranking| ranking.answers.into_iter());
        for (p, (phrase, answer)) in entry.phrases.iter().zip(reply.answers).enumerate() {
            let all = ranked.as_mut().and_then(Iterator::next).map(Result::unwrap_or_default);
            let reported = answer.as_ref().ok().map(|said| Answer { boxes: &said.boxes, finished: said.finished });
            let ranking = match how.rank {
                Rank::Not => None,
                Rank::Reported => Some(reported.map(|answer| answer.boxes).unwrap_or_default()),
                Rank::Again => all.as_ref().map(|said| said.boxes.as_slice()),
            };
            let verdict = self.scorer.add(&phrase.kind, &phrase.truths, reported, ranking);
            match answer {
                Ok(Said { boxes: answer, .. }) if how.keep => {
                    self.shown.push(Shown { entry: i, phrase: p, verdict, answer });
                }
                Ok(_) => {}
                Err(reason) => {
                    let known = self.refused.len() < REASONS || self.refused.contains_key(&reason);
                    let reason = if known { reason } else { "other reasons".to_owned() };
                    *self.refused.entry(reason).or_default() += 1;
                }
            }
        }
    }

    fn report(&self) -> MethodReport {
        let (figures, kinds) = self.scorer.figures();
        MethodReport {
            method: self.method,
            score_kinds: self.kinds.clone(),
            figures,
            cost: CostReport::from(&self.cost),
            refused: self.refused.clone(),
            kinds,
        }
    }
}

/// Writes what can be written; the error names everything that cannot.
fn write_files(args: &args::Eval, dataset: &Dataset, runs: &[Run], report: &Report) -> Result<(), Failure> {
    let mut failed = Vec::new();
    let mut note = |path: &Path, reason: String| failed.push(outputs::cannot_write(path, &reason));
    if let Some(path) = &args.json {
        report::write(report, path).unwrap_or_else(|reason| note(path, reason));
    }
    if let Some(path) = &args.plot {
        plot::draw(report, path).unwrap_or_else(|reason| note(path, reason));
    }
    if let Some(folder) = &args.examples {
        for run in runs {
            match examples::draw(&dataset.entries, run.method, &run.shown, folder) {
                Ok(drawn) => info!(method = %run.method, pictures = drawn, folder = %folder.display(), "examples"),
                Err(reason) => note(folder, reason),
            }
        }
    }
    outputs::all_written(&failed)
}

impl From<DatasetError> for Failure {
    fn from(error: DatasetError) -> Self {
        let exit = if error.is_usage() { Exit::Usage } else { Exit::Config };
        Self::of(exit, &error)
    }
}
