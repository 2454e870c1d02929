//! Several cues on one picture (`get_zoom_eye_response` in `zoom_eye`).
//!
//! A question is about one thing or several. One thing is sought with the question itself; of several each is sought
//! with a question about its looks, and down to the bottom. A cue that begins with `all ` is collected instead. A model
//! that sees the whole picture beside the area is first asked, for several cues, whether it needs the search: if one of
//! them is answered at a glance, the whole picture is enough.

use std::sync::Arc;

use super::{
    Kind, Question, Rules,
    collect::Collect,
    cues,
    rules::Views,
    seek::{Goal, Seek, question},
    tree::Tree,
};

/// What comes next for the cues.
#[derive(Debug, Clone)]
enum Stage {
    /// Whether the cue with this number is answered at a glance.
    Glance(usize),
    /// The cue with this number is about to be searched.
    Begin(usize),
    Seek(usize, Seek),
    Collect(usize, Collect),
    Over,
}

/// A search for every cue of a question.
#[derive(Debug, Clone)]
pub struct Plan {
    tree: Tree,
    rules: Rules,
    question: Arc<str>,
    cues: Vec<Arc<str>>,
    stage: Stage,
    /// Whether the glance at the cue in question was enough; not known yet.
    glanced: Option<bool>,
    found: Vec<usize>,
    taken: Vec<Vec<usize>>,
}

impl Plan {
    /// A search for `cues` in a picture; `question` is what should be answerable where there is a single one.
    pub fn new(tree: Tree, rules: Rules, question: &str, cues: &[String]) -> Self {
        let several = cues.len() > 1 && rules.views == Views::GlobalLocal;
        let cues = cues.iter().map(|cue| cue.as_str().into()).collect();
        let stage = if several { Stage::Glance(0) } else { Stage::Begin(0) };
        Self {
            tree,
            rules,
            question: question.into(),
            cues,
            stage,
            glanced: None,
            found: Vec::new(),
            taken: Vec::new(),
        }
    }

    /// A search for everything that `cue` names, whatever its form.
    pub fn all(tree: Tree, rules: Rules, cue: &str) -> Self {
        let collect = Collect::new(&tree, cue.into());
        Self { stage: Stage::Collect(0, collect), ..Self::new(tree, rules, cue, &[]) }
    }

    /// The picture's tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The nodes found so far: for each cue that was sought at most one, for each that was collected any number. Empty
    /// when all is over: the whole picture has to do.
    pub fn found(&self) -> Vec<usize> {
        let mut found = self.found.clone();
        match &self.stage {
            Stage::Seek(_, seek) => found.extend(seek.found(&self.tree)),
            Stage::Collect(_, collect) => found.extend(collect.found(&self.tree, &self.rules)),
            _ => {}
        }
        found
    }

    /// For each cue that was sought, the nodes in the order they were looked at.
    pub fn taken(&self) -> &[Vec<usize>] {
        &self.taken
    }

    /// Whether nothing is left to ask.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// What it waits for; nothing when it is over.
    pub fn pending(&mut self) -> Vec<Question> {
        loop {
            let (tree, rules) = (&self.tree, &self.rules);
            let (questions, next) = match &mut self.stage {
                Stage::Over => return Vec::new(),
                Stage::Glance(at) => {
                    let at = *at;
                    match (self.cues.get(at), self.glanced.take()) {
                        (None, _) => (Vec::new(), Stage::Begin(0)),
                        (Some(_), Some(true)) => (Vec::new(), Stage::Over),
                        (Some(cue), None) if !cues::is_all(cue) => (vec![glance(tree, cue)], Stage::Glance(at)),
                        (Some(_), _) => (Vec::new(), Stage::Glance(at + 1)),
                    }
                }
                Stage::Begin(at) => (Vec::new(), begin(tree, rules, &self.question, &self.cues, *at)),
                Stage::Seek(at, seek) => {
                    let questions = seek.pending(tree, rules);
                    if !questions.is_empty() {
                        return questions;
                    }
                    self.found.extend(seek.found(tree));
                    self.taken.push(seek.taken().to_vec());
                    (questions, Stage::Begin(*at + 1))
                }
                Stage::Collect(at, collect) => {
                    let questions = collect.pending(tree, rules);
                    if !questions.is_empty() {
                        return questions;
                    }
                    self.found.extend(collect.found(tree, rules));
                    (questions, Stage::Begin(*at + 1))
                }
            };
            self.stage = next;
            if !questions.is_empty() {
                return questions;
            }
        }
    }

    /// Takes an answer to one of its questions; `deeper` says whether the view's parts are worth asking about, which
    /// only a collection heeds.
    pub fn tell(&mut self, question: &Question, value: f64, deeper: bool) {
        match &mut self.stage {
            Stage::Glance(_) => self.glanced = Some(value >= self.rules.upper),
            Stage::Seek(_, seek) => seek.tell(question, value),
            Stage::Collect(_, collect) => collect.tell(question, value, deeper),
            Stage::Begin(_) | Stage::Over => {}
        }
    }
}

/// The search for one cue.
fn begin(tree: &Tree, rules: &Rules, question: &Arc<str>, cues: &[Arc<str>], at: usize) -> Stage {
    let Some(cue) = cues.get(at) else { return Stage::Over };
    if cues::is_all(cue) {
        return Stage::Collect(at, Collect::new(tree, cues::singular(cue).into()));
    }
    let alone = cues.len() == 1;
    let goal = Goal {
        cue: Arc::clone(cue),
        question: if alone { Arc::clone(question) } else { cues::question_about(cue).into() },
        to_the_bottom: !alone,
        skip_whole: !alone && rules.views == Views::Local,
    };
    Stage::Seek(at, Seek::new(tree, rules, goal))
}

fn glance(tree: &Tree, cue: &str) -> Question {
    let mut asked = question(tree, Tree::ROOT, Kind::Answering, &cues::question_about(cue).into());
    asked.view.glance = true;
    asked
}
