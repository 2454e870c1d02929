//! What a model is asked, word by word, as the original asks it (`init_prompts` of its models).

use super::{Kind, Prompt, View, mark::Colour, rules::Views};

/// A piece of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The next picture of the view.
    Picture,
    /// Words.
    Words(String),
}

/// The pieces of a prompt about a view. With [`Views::GlobalLocal`] an area is shown as two pictures, the whole with the
/// area framed in `colour` and the area; everything else is one picture.
pub fn prompt(views: Views, view: &View, prompt: Prompt<'_>, colour: Colour) -> Vec<Part> {
    let about = prompt.about;
    let zoomed = views == Views::GlobalLocal && !view.is_whole();
    let asked = match (prompt.kind, views, zoomed) {
        (Kind::Existence, _, true) => format!("Is there a {about} in the zoomed-in view? Answer Yes or No."),
        (Kind::Existence, _, false) => format!("Is there a {about} in the image? Answer Yes or No."),
        (Kind::Latent, _, true) => format!(
            "According to your common sense knowledge and the content of the zoomed-in view, along with its location \
             in the image, is it possible to find a {about} by further zooming in the current view? Answer Yes or No \
             and tell the reason."
        ),
        (Kind::Latent, Views::GlobalLocal, false) => format!(
            "According to your common sense knowledge and the content of image, is it possible to find a {about} by \
             further zooming in the image? Answer Yes or No and tell the reason."
        ),
        (Kind::Latent, Views::Local, false) => format!(
            "According to your common sense knowledge and the content of the image, is it possible to find a {about} \
             in the image? Answer Yes or No and tell the reason."
        ),
        // "the the" is how the models were asked.
        (Kind::Answering, ..) => format!(
            "Question: {about}\nCould you answer the question based on the the available visual information? Answer \
             Yes or No."
        ),
    };
    if !zoomed {
        return vec![Part::Picture, Part::Words(asked)];
    }
    let colour = colour.name();
    let main =
        format!("This is the main image, and the section enclosed by the {colour} rectangle is the focus region.\n");
    let focus = format!("This is the zoomed-in view of the focus region.\n{asked}");
    vec![Part::Picture, Part::Words(main), Part::Picture, Part::Words(focus)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::zoom::tree::Area;

    fn words(views: Views, depth: usize, kind: Kind) -> (usize, String) {
        let area = Area { x: 0, y: 0, width: 9, height: 9 };
        let view = View { area, depth, glance: false };
        let parts = prompt(views, &view, Prompt { kind, about: "red car" }, Colour::Red);
        let pictures = parts.iter().filter(|part| **part == Part::Picture).count();
        let words =
            parts.iter().filter_map(|part| if let Part::Words(words) = part { Some(words.as_str()) } else { None });
        (pictures, words.collect())
    }

    #[test]
    fn an_area_is_asked_about_with_the_picture_it_lies_in() {
        let (pictures, text) = words(Views::GlobalLocal, 2, Kind::Existence);
        assert_eq!(pictures, 2);
        assert_eq!(
            text,
            "This is the main image, and the section enclosed by the red rectangle is the focus region.\nThis is the \
             zoomed-in view of the focus region.\nIs there a red car in the zoomed-in view? Answer Yes or No."
        );
        assert_eq!(
            words(Views::GlobalLocal, 0, Kind::Existence),
            (1, "Is there a red car in the image? Answer Yes or No.".into())
        );
        assert_eq!(words(Views::Local, 2, Kind::Existence).0, 1);
        assert!(words(Views::Local, 1, Kind::Latent).1.contains("in the image?"));
        assert!(words(Views::GlobalLocal, 0, Kind::Latent).1.contains("by further zooming in the image?"));
        assert!(words(Views::GlobalLocal, 1, Kind::Answering).1.contains("on the the available"));
    }
}
