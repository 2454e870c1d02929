//! All of a kind: every view down to a depth, and of those the ones that show it best ("type 2",
//! `zoom_eye_search_type2` in `zoom_eye`).
//!
//! A view counts if the model is sure enough, and no less sure than of any view inside it. The original asks bottom up;
//! here a view is asked before its parts, which makes no difference once all are known, and lets a budget end it with
//! what the coarse views say, and a model spare parts that are not worth it.

use std::sync::Arc;

use super::{Kind, Question, Rules, seek::question, sound, tree::Tree};

/// A collection under way.
#[derive(Debug, Clone)]
pub struct Collect {
    cue: Arc<str>,
    said: Vec<Option<f64>>,
    /// Nodes that are not looked into.
    closed: Vec<bool>,
    /// Nodes to ask; those that are known have left it.
    open: Vec<usize>,
}

impl Collect {
    /// A collection that has not begun.
    pub fn new(tree: &Tree, cue: Arc<str>) -> Self {
        Self { cue, said: vec![None; tree.count()], closed: vec![false; tree.count()], open: vec![Tree::ROOT] }
    }

    /// What may be asked next. Nothing means that all is known.
    pub fn pending(&mut self, tree: &Tree, rules: &Rules) -> Vec<Question> {
        let (known, unknown): (Vec<_>, Vec<_>) = self.open.iter().partition(|at| self.said[**at].is_some());
        self.open = unknown;
        for at in known {
            let node = tree.node(at);
            if node.depth < rules.collect_depth && !self.closed[at] {
                self.open.extend(node.children.clone());
            }
        }
        // Parts of a node that was told and is in the queue twice over cannot be: each has one parent.
        self.open.iter().map(|at| question(tree, *at, Kind::Existence, &self.cue)).collect()
    }

    /// Takes an answer to one of its questions; `deeper` says whether the parts are worth asking.
    pub fn tell(&mut self, question: &Question, value: f64, deeper: bool) {
        if let (Some(said), Some(closed)) = (self.said.get_mut(question.node), self.closed.get_mut(question.node)) {
            *said = Some(sound(value));
            *closed = !deeper;
        }
    }

    /// The nodes that count, parts before the whole; what is not known is left out.
    pub fn found(&self, tree: &Tree, rules: &Rules) -> Vec<usize> {
        let mut found = Vec::new();
        self.gather(tree, rules, Tree::ROOT, &mut found);
        found
    }

    /// The best confidence at or below `at`; -1 where nothing is known.
    fn gather(&self, tree: &Tree, rules: &Rules, at: usize, found: &mut Vec<usize>) -> f64 {
        let Some(own) = self.said[at] else { return -1.0 };
        let node = tree.node(at);
        let mut best: f64 = -1.0;
        if node.depth < rules.collect_depth {
            for child in node.children.clone() {
                best = best.max(self.gather(tree, rules, child, found));
            }
        }
        if own >= best.max(rules.existence) {
            found.push(at);
        }
        best.max(own)
    }
}
