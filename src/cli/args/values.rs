//! What values of options are read by; what is wrong is said in words.

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::{ground::ModelConfig, types::query};

/// Parses one of `all` by its `name`, and lists them in the help.
pub(super) fn one_of<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(all.iter().map(|value| name(*value)))
        .try_map(move |text| all.iter().copied().find(|value| name(*value) == text).ok_or("is not one of the values"))
}

pub(super) fn query_text(text: &str) -> Result<String, String> {
    query::check_text(text).map(str::to_owned)
}

pub(super) fn streams(text: &str) -> Result<usize, String> {
    match text.trim().parse::<usize>() {
        Ok(n) if (1..=256).contains(&n) => Ok(n),
        _ => Err("a number from 1 to 256 is needed".to_owned()),
    }
}

pub(super) fn named(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() && !value.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("NAME=VALUE is needed".to_owned()),
    }
}

pub(super) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n > 0.0 && n <= 1e9 => Ok(n),
        _ => Err("a number above 0 is needed".to_owned()),
    }
}

pub(super) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("a whole number above 0 is needed".to_owned()),
    }
}

pub(super) fn threads(text: &str) -> Result<usize, String> {
    let most = ModelConfig::MOST_THREADS;
    let read = text.parse().ok().filter(|n| *n <= most);
    read.ok_or_else(|| format!("a whole number is needed, 0 for one a core or at most {most}"))
}

pub(super) fn detail(text: &str) -> Result<f32, String> {
    let (least, most) = (ModelConfig::DETAIL.start(), ModelConfig::DETAIL.end());
    let read = text.parse().ok().filter(|n| ModelConfig::DETAIL.contains(n));
    read.ok_or_else(|| format!("a number from {least} to {most} is needed"))
}

pub(super) fn score(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(n) if (0.0..=1.0).contains(&n) => Ok(n),
        _ => Err("a number from 0 to 1 is needed".to_owned()),
    }
}
