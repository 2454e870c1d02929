//! ONNX files that name one size of pictures, although their graphs take any.
//!
//! A network of convolutions does the same at every place. What exports it writes down the size that it was shown all the
//! same, and ONNX Runtime then refuses every other.

use std::borrow::Cow;

use quick_protobuf::{BytesReader, Error, Writer};

use crate::types::Size;

// Numbers of fields in `onnx.proto`.
const MODEL_GRAPH: u32 = 7;
const GRAPH_INPUT: u32 = 11;
const GRAPH_OUTPUT: u32 = 12;
/// What is said of the tensors in between; the runtime works it out by itself.
const GRAPH_VALUE_INFO: u32 = 13;
const VALUE_TYPE: u32 = 2;
const TYPE_TENSOR: u32 = 1;
const TENSOR_SHAPE: u32 = 2;
const AXIS_LENGTH: u32 = 1;
const AXIS_NAME: u32 = 2;
/// The kind of field that is a text, some bytes or a message.
const BYTES: u32 = 2;

/// What becomes of a field; `None` is left out.
type Change<'a> = Result<Option<Cow<'a, [u8]>>, Error>;

/// What becomes of a message.
type Changed = Result<Vec<u8>, Error>;

/// The ONNX file `model`, whose inputs `[?, 3, height, width]` take pictures of any size instead of `image`. Whether its graph can
/// is another matter. Fails if it is no ONNX file.
pub fn freed(model: &[u8], image: Size) -> Changed {
    within(model, &[MODEL_GRAPH], &mut |graph| {
        rewritten(graph, &mut |field, value| {
            Ok(match field {
                GRAPH_INPUT => Some(of_shape(value, &mut |shape| any_size(shape, image))?.into()),
                GRAPH_OUTPUT => Some(of_shape(value, &mut any_rows)?.into()),
                GRAPH_VALUE_INFO => None,
                _ => Some(value.into()),
            })
        })
    })
}

/// The message, with what `change` makes of each field that is a text, some bytes or a message itself.
fn rewritten<'a>(message: &'a [u8], change: &mut dyn FnMut(u32, &'a [u8]) -> Change<'a>) -> Changed {
    let mut out = Vec::with_capacity(message.len());
    let mut reader = BytesReader::from_bytes(message);
    while !reader.is_eof() {
        let from = message.len() - reader.len();
        let tag = reader.next_tag(message)?;
        if tag & 7 == BYTES {
            if let Some(value) = change(tag >> 3, reader.read_bytes(message)?)? {
                Writer::new(&mut out).write_with_tag(tag, |writer| writer.write_bytes(&value))?;
            }
        } else {
            reader.read_unknown(message, tag)?;
            let to = message.len() - reader.len();
            out.extend_from_slice(message.get(from..to).ok_or(Error::UnexpectedEndOfBuffer)?);
        }
    }
    Ok(out)
}

/// The message, with what `change` makes of the one that lies in it behind `fields`.
fn within(message: &[u8], fields: &[u32], change: &mut dyn FnMut(&[u8]) -> Changed) -> Changed {
    let Some((first, rest)) = fields.split_first() else { return change(message) };
    rewritten(message, &mut |field, value| {
        Ok(Some(if field == *first { within(value, rest, change)?.into() } else { value.into() }))
    })
}

fn of_shape(value: &[u8], change: &mut dyn FnMut(&[u8]) -> Changed) -> Changed {
    within(value, &[VALUE_TYPE, TYPE_TENSOR, TENSOR_SHAPE], change)
}

/// A shape `[?, 3, height, width]` with names in place of the last two; any other as it is.
fn any_size(shape: &[u8], image: Size) -> Changed {
    if !matches!(lengths(shape)?[..], [_, Some(3), Some(height), Some(width)]
        if height == u64::from(image.height) && width == u64::from(image.width))
    {
        return Ok(shape.to_vec());
    }
    let mut names = [None, None, Some("height"), Some("width")].into_iter();
    rewritten(shape, &mut |_, axis| match names.next().flatten() {
        Some(name) => {
            let mut named = Vec::new();
            Writer::new(&mut named).write_with_tag(AXIS_NAME << 3 | BYTES, |writer| writer.write_string(name))?;
            Ok(Some(named.into()))
        }
        None => Ok(Some(axis.into())),
    })
}

/// A shape with as many axes, nothing said of their lengths but of the last's: what is told of a cell does not depend on how many
/// there are.
fn any_rows(shape: &[u8]) -> Changed {
    let mut axes = lengths(shape)?.len();
    rewritten(shape, &mut |_, axis| {
        axes = axes.saturating_sub(1);
        Ok(Some(if axes == 0 { axis.into() } else { Cow::Borrowed(&[]) }))
    })
}

/// The lengths of a shape's axes, of those that have one.
fn lengths(shape: &[u8]) -> Result<Vec<Option<u64>>, Error> {
    let mut lengths = Vec::new();
    rewritten(shape, &mut |_, axis| {
        lengths.push(length(axis)?);
        Ok(None)
    })?;
    Ok(lengths)
}

/// The length of an axis, if it has one.
fn length(axis: &[u8]) -> Result<Option<u64>, Error> {
    let mut reader = BytesReader::from_bytes(axis);
    while !reader.is_eof() {
        match reader.next_tag(axis)? {
            tag if tag == AXIS_LENGTH << 3 => return reader.read_varint64(axis).map(Some),
            tag => reader.read_unknown(axis, tag)?,
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(fields: &[(u32, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (field, value) in fields {
            Writer::new(&mut out).write_with_tag(field << 3 | BYTES, |writer| writer.write_bytes(value)).unwrap();
        }
        out
    }

    fn number(field: u32, value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        Writer::new(&mut out).write_with_tag(field << 3, |writer| writer.write_varint(value)).unwrap();
        out
    }

    fn value(name: &str, axes: &[Vec<u8>]) -> Vec<u8> {
        let axes: Vec<_> = axes.iter().map(|axis| (1, axis.as_slice())).collect();
        let tensor = [number(1, 1), message(&[(TENSOR_SHAPE, &message(&axes))])].concat();
        message(&[(1, name.as_bytes()), (VALUE_TYPE, &message(&[(TYPE_TENSOR, &tensor)]))])
    }

    fn told(axes: &[u64]) -> Vec<Vec<u8>> {
        axes.iter().map(|length| number(AXIS_LENGTH, *length)).collect()
    }

    #[test]
    fn the_picture_may_have_any_size_and_all_else_stays() {
        let name = |text: &str| message(&[(AXIS_NAME, text.as_bytes())]);
        let weights = value("weights", &told(&[24, 3, 3, 3]));
        let model = |image: &[u8], output: &[u8], between: &[(u32, &[u8])]| {
            let mut graph = vec![(1, b"a node".as_slice()), (GRAPH_INPUT, image), (GRAPH_INPUT, &weights)];
            graph.extend([(GRAPH_OUTPUT, output)]);
            graph.extend(between);
            [number(1, 8), message(&[(2, b"pytorch"), (MODEL_GRAPH, &message(&graph))]), number(5, 1)].concat()
        };
        let between = value("between", &told(&[1, 8, 52, 52]));
        let fixed = model(
            &value("images", &told(&[1, 3, 416, 640])),
            &value("output", &told(&[1, 5460, 85])),
            &[(GRAPH_VALUE_INFO, &between)],
        );
        let axes = [told(&[1, 3]), vec![name("height"), name("width")]].concat();
        let rows = [vec![vec![], vec![]], told(&[85])].concat();
        let free = model(&value("images", &axes), &value("output", &rows), &[]);
        assert_eq!(freed(&fixed, Size::new(640, 416)).unwrap(), free);
    }

    #[test]
    fn half_a_file_is_refused() {
        let whole = message(&[(MODEL_GRAPH, &message(&[(GRAPH_INPUT, &value("images", &told(&[1, 3, 8, 8])))]))]);
        assert!(freed(&whole[..whole.len() - 3], Size::new(8, 8)).is_err());
        assert!(freed(&message(&[(MODEL_GRAPH, b"\x5a\x05abc")]), Size::new(8, 8)).is_err());
    }

    proptest! {
        #[test]
        fn twice_is_once_whatever_the_shapes_and_bytes(
            shapes in proptest::collection::vec(proptest::collection::vec(prop_oneof![Just(1u64), Just(3), Just(8)], 0..6), 1..4),
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let image = Size::new(8, 8);
            let inputs: Vec<_> = shapes.iter().map(|axes| value("images", &told(axes))).collect();
            let graph: Vec<_> = inputs.iter().map(|input| (GRAPH_INPUT, input.as_slice())).collect();
            let known = message(&[(MODEL_GRAPH, &message(&graph))]);
            let once = freed(&known, image).unwrap();
            prop_assert_eq!(once == known, shapes.iter().all(|axes| !matches!(axes[..], [_, 3, 8, 8])));
            for model in [known, message(&[(MODEL_GRAPH, &message(&[(GRAPH_INPUT, &bytes)]))]), bytes] {
                if let Ok(once) = freed(&model, image) {
                    prop_assert_eq!(freed(&once, image).ok(), Some(once));
                }
            }
        }
    }
}
