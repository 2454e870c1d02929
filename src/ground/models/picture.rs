//! From `[input]` to the code that prepares pictures.

use super::need;
use crate::{
    ground::{
        GroundError,
        engine::{Engine, EngineError, Tensor},
        manifest::{Channels, Fit, Input, Manifest, Resample},
        vision::{self, Filter, Laid, Lay, Normalise, Resampler, SmartResize, Values, VisionError, qwen},
    },
    types::{Rgb, Size},
};

/// How bytes become numbers.
fn normalise(manifest: &Manifest) -> Result<Normalise, GroundError> {
    let input = &manifest.input;
    let scale = need(manifest, "input.scale", input.scale)?;
    if !is_byte(scale) {
        return Err(GroundError::unfit(manifest, format!("input.scale: is {scale}; only 1/255 is known here")));
    }
    let (mean, std) = (need(manifest, "input.mean", input.mean)?, need(manifest, "input.std", input.std)?);
    if !usable(mean, std) {
        return Err(GroundError::unfit(manifest, "input.mean, input.std: should be numbers, and std above 0"));
    }
    Ok(Normalise { mean, std })
}

/// Whether what a byte is multiplied by makes it 0 to 1.
fn is_byte(scale: f64) -> bool {
    (scale * 255.0 - 1.0).abs() <= 1e-6
}

/// Refuses an order of colours that would not be heeded: most models are shown red first, whatever a manifest says.
fn red_first(manifest: &Manifest, table: &str, input: &Input) -> Result<(), GroundError> {
    if input.channels == Channels::Rgb {
        return Ok(());
    }
    let family = &manifest.family;
    let reason = format!(
        "{table}.channels: pictures for the family {family} have red first; leave it out, and let the graph turn the colours \
         if it wants blue first"
    );
    Err(GroundError::unfit(manifest, reason))
}

/// Refuses numbers other than those that the model was published with, and that pictures are prepared by.
pub(super) fn published(manifest: &Manifest, own: Normalise) -> Result<(), GroundError> {
    let input = &manifest.input;
    let close = |have: Option<[f32; 3]>, want: [f32; 3]| {
        have.is_none_or(|have| have.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6))
    };
    let Normalise { mean, std } = own;
    let normed = close(input.mean, mean) && close(input.std, std) && input.scale.is_none_or(is_byte);
    if !normed || input.resample.is_some_and(|r| r != Resample::Bilinear) {
        let fit = input.fit.name();
        let reason = format!(
            "input.mean, std, scale, resample: with fit = \"{fit}\" only {mean:?}, {std:?}, 1/255 and \"bilinear\" are known; \
             leave them out"
        );
        return Err(GroundError::unfit(manifest, reason));
    }
    red_first(manifest, "input", input)
}

/// Whether values can be normed so.
pub(super) fn usable(mean: [f32; 3], std: [f32; 3]) -> bool {
    mean.iter().all(|v| v.is_finite()) && std.iter().all(|v| v.is_finite() && *v > 0.0)
}

fn fits(manifest: &Manifest, fit: Fit) -> Result<(), GroundError> {
    if manifest.input.fit == fit {
        return Ok(());
    }
    let (family, want, is) = (&manifest.family, fit.name(), manifest.input.fit.name());
    Err(GroundError::unfit(manifest, format!("input.fit: is `{is}`; the family {family} needs `{want}`")))
}

fn filter(manifest: &Manifest) -> Result<Filter, GroundError> {
    Ok(filtered(need(manifest, "input.resample", manifest.input.resample)?))
}

fn filtered(resample: Resample) -> Filter {
    match resample {
        Resample::Bilinear => Filter::Bilinear,
        Resample::Bicubic => Filter::Bicubic,
        Resample::Linear => Filter::Linear,
    }
}

/// What a language model is shown beside the picture that its boxes lie in (`[look]`); and whether that keeps its shape
/// and loses its ends, rather than being stretched.
pub(super) fn look(manifest: &Manifest) -> Result<(vision::Fit, bool), GroundError> {
    let look = need(manifest, "look", manifest.look.as_ref())?;
    red_first(manifest, "look", look)?;
    let centre = match look.fit {
        Fit::Centre => true,
        Fit::Stretch => false,
        other => {
            let (family, is) = (&manifest.family, other.name());
            return Err(GroundError::unfit(
                manifest,
                format!("look.fit: is `{is}`; the family {family} needs `centre` or `stretch`"),
            ));
        }
    };
    let told = |key: &str| GroundError::unfit(manifest, format!("look.{key}: the family {} needs it", manifest.family));
    let (mean, std) = (look.mean.ok_or_else(|| told("mean"))?, look.std.ok_or_else(|| told("std"))?);
    if !look.scale.is_some_and(is_byte) || !usable(mean, std) {
        return Err(GroundError::unfit(
            manifest,
            "look.scale, mean, std: should be 1/255 and numbers, and std above 0",
        ));
    }
    let filter = filtered(look.resample.ok_or_else(|| told("resample"))?);
    Ok((vision::Fit { image: Size::new(look.width, look.height), filter, normalise: Normalise { mean, std } }, centre))
}

/// A picture as a detector with classes of its own takes it: stretched or in a corner, in any numbers.
pub(super) fn lay(manifest: &Manifest) -> Result<Lay, GroundError> {
    let pad = || need(manifest, "input.pad", manifest.input.pad);
    let laid = match manifest.input.fit {
        Fit::Stretch => Laid::Stretch,
        Fit::Corner => Laid::Corner(pad()?),
        other => {
            let (family, is) = (&manifest.family, other.name());
            let reason = format!("input.fit: is `{is}`; the family {family} needs `stretch` or `corner`");
            return Err(GroundError::unfit(manifest, reason));
        }
    };
    laid_out(manifest, laid)
}

/// A picture in a corner, its sides rounded to whole pixels.
pub(super) fn rounded(manifest: &Manifest) -> Result<Lay, GroundError> {
    fits(manifest, Fit::Corner)?;
    laid_out(manifest, Laid::Rounded(need(manifest, "input.pad", manifest.input.pad)?))
}

fn laid_out(manifest: &Manifest, laid: Laid) -> Result<Lay, GroundError> {
    let input = &manifest.input;
    let scale = need(manifest, "input.scale", input.scale)?;
    let (mean, std) = (need(manifest, "input.mean", input.mean)?, need(manifest, "input.std", input.std)?);
    if !scale.is_finite() || !usable(mean, std) {
        return Err(GroundError::unfit(manifest, "input.scale, mean, std: should be numbers, and std above 0"));
    }
    let values = Values { scale, mean, std, bgr: input.channels == Channels::Bgr };
    Ok(Lay::new(Size::new(input.width, input.height), laid, filter(manifest)?, &values))
}

/// The lengths that a picture's shorter and longer side are scaled to; it is normed as `ImageNet`'s are.
pub(super) fn shortest(manifest: &Manifest) -> Result<(u32, u32), GroundError> {
    fits(manifest, Fit::Shortest)?;
    let input = &manifest.input;
    let limits = (need(manifest, "input.shortest", input.shortest)?, need(manifest, "input.longest", input.longest)?);
    if limits.0 == 0 || limits.1 < limits.0 {
        return Err(GroundError::unfit(manifest, "input.longest: should be no less than input.shortest"));
    }
    published(manifest, Normalise::IMAGENET)?;
    Ok(limits)
}

/// The input that is the picture: the only one beside `others`.
pub(super) fn port(engine: &dyn Engine, image: Size, others: &[&str]) -> Result<String, EngineError> {
    let mut ports = engine.inputs().iter().filter(|port| !others.contains(&port.name.as_str()));
    let (height, width) = (image.height as usize, image.width as usize);
    let wanted = [Some(1), Some(3), Some(height), Some(width)];
    let picture = ports.next().filter(|port| port.element.is_float() && port.has_shape(&wanted));
    match (picture, ports.next()) {
        (Some(port), None) if engine.inputs().len() == others.len() + 1 => Ok(port.name.clone()),
        _ => {
            let expected = format!("one picture, f32[1,3,{height},{width}] as [input] of the manifest says");
            Err(engine.wrong_inputs(expected))
        }
    }
}

/// A picture stretched to a fixed size.
pub(super) fn stretch(manifest: &Manifest) -> Result<vision::Fit, GroundError> {
    fits(manifest, Fit::Stretch)?;
    red_first(manifest, "input", &manifest.input)?;
    let filter = filter(manifest)?;
    let image = Size::new(manifest.input.width, manifest.input.height);
    Ok(vision::Fit { image, filter, normalise: normalise(manifest)? })
}

/// The tensor of a picture stretched by `fit`: f32 `[1, 3, height, width]`.
pub(super) fn stretched(fit: &vision::Fit, picture: &Rgb, resampler: &mut Resampler) -> Result<Tensor, VisionError> {
    let mut data = Vec::new();
    fit.prepare(&picture.data, picture.size, resampler, &mut data)?;
    let (height, width) = (fit.image.height as usize, fit.image.width as usize);
    Ok(Tensor::f32s(&[1, 3, height, width], data))
}

/// A picture in patches.
pub(super) fn patches(manifest: &Manifest) -> Result<(SmartResize, Normalise), GroundError> {
    fits(manifest, Fit::Patches)?;
    let input = &manifest.input;
    red_first(manifest, "input", input)?;
    let (merge, frames) = (input.merge.unwrap_or(qwen::MERGE), input.temporal_patch.unwrap_or(qwen::TEMPORAL));
    if merge != qwen::MERGE || frames != qwen::TEMPORAL || input.resample.is_some_and(|r| r != Resample::Bicubic) {
        let reason = "input: only merge = 2, temporal_patch = 2 and resample = \"bicubic\" are known here";
        return Err(GroundError::unfit(manifest, reason));
    }
    let patch = need(manifest, "input.patch", input.patch)?;
    let min_pixels = need(manifest, "input.min_pixels", input.min_pixels)?;
    let max_pixels = need(manifest, "input.max_pixels", input.max_pixels)?;
    let least = |patch: u32| u64::from(patch * qwen::MERGE).pow(2);
    let fits = (1..=256).contains(&patch) && (least(patch)..=1 << 28).contains(&max_pixels);
    if !fits || min_pixels > max_pixels {
        let reason =
            format!("input: patch {patch}, min_pixels {min_pixels} and max_pixels {max_pixels} do not go together");
        return Err(GroundError::unfit(manifest, reason));
    }
    if let Some(window) = input.window.filter(|window| qwen::units(*window, patch) == 0) {
        return Err(GroundError::unfit(
            manifest,
            format!("input.window: {window} pixels do not hold one merged patch of {patch}"),
        ));
    }
    Ok((SmartResize { patch, min_pixels, max_pixels }, normalise(manifest)?))
}
