//! What the graphs take and give, checked against the manifest's numbers and one another.

use super::Sizes;
use crate::ground::{
    engine::{self, Element, Engine, EngineError, Outputs, Port},
    models::numbers,
};

/// The width of a feature comes from `vision`; 0 where it does not say.
pub(super) fn width(vision: &dyn Engine) -> usize {
    let declared = vision.output("regions").and_then(|port| port.shape.last().copied());
    declared.flatten().unwrap_or_default()
}

/// Words as graphs take them.
pub(super) fn said(Sizes { tokens, width, .. }: &Sizes) -> [Port; 2] {
    let words = Port::new("text", Element::F32, &[None, Some(*tokens), Some(*width)]);
    [words, Port::new("ids", Element::I64, &[None, Some(*tokens)])]
}

/// Checks the graphs that every method needs against the manifest's numbers and one another.
pub(super) fn check(
    vision: &dyn Engine,
    text: &dyn Engine,
    select: &dyn Engine,
    sizes: &Sizes,
) -> Result<(), EngineError> {
    let Sizes { canvases, regions, width, .. } = sizes;
    let usual = canvases.usual();
    let side = |length: u32| (canvases.iter().count() == 1).then_some(length as usize);
    let (k, d) = (Some(*regions), Some(*width));
    let f32s = |name, shape: &[Option<usize>]| Port::new(name, Element::F32, shape);
    let (boxes, objectness) = (f32s("boxes", &[None, k, Some(4)]), f32s("objectness", &[None, k]));
    let region = f32s("regions", &[None, k, d]);
    let pixels = Port::new("pixels", Element::U8, &[None, side(usual.height), side(usual.width), Some(3)]);
    engine::check_ports(vision, &[pixels], &[boxes.clone(), objectness.clone(), region.clone()])?;
    if *width == 0 {
        let (expected, found) = ("regions of a fixed width".to_owned(), "of a free one".to_owned());
        return Err(vision.wrong_ports("outputs", expected, found));
    }
    let [words, ids] = said(sizes);
    engine::check_ports(text, std::slice::from_ref(&ids), std::slice::from_ref(&words))?;
    let matched = [f32s("match", &[None, k]), f32s("none", &[None])];
    engine::check_ports(select, &[region, boxes, objectness, words, ids], &matched)
}

/// Checks that a graph gives something that only some methods need.
pub(super) fn needs(graph: &dyn Engine, wanted: &[Port]) -> Result<(), EngineError> {
    engine::check_ports(graph, graph.inputs(), wanted)
}

/// Takes one output of a known shape.
pub(super) fn take(
    graph: &dyn Engine,
    outputs: &mut Outputs,
    name: &str,
    shape: &[usize],
) -> Result<Vec<f32>, EngineError> {
    outputs.take_f32(name, shape).map_err(|reason| graph.failed(reason))
}

/// What was given, or an error that nothing is there that is `called` so.
pub(super) fn found<T>(graph: &dyn Engine, called: &str, given: Option<T>) -> Result<T, EngineError> {
    given.ok_or_else(|| graph.failed(format!("it gave no {called}")))
}

/// Scores that are numbers. By others nothing would be found, and it would be said that nothing is there.
pub(super) fn sound(graph: &dyn Engine, name: &str, scores: Vec<f32>) -> Result<Vec<f32>, EngineError> {
    let checked = numbers(name, &scores);
    checked.map(|()| scores).map_err(|reason| graph.failed(reason))
}
