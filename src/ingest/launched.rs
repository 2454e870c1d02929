//! A pipeline of our own for a while: from its text until it goes out of scope.

use gstreamer::{self as gst, prelude::*};

/// A pipeline that is stopped when this goes out of scope, however that comes about.
pub(super) struct Launched(gst::Pipeline);

impl Launched {
    /// The pipeline of this text, or why there is none.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let element = gst::parse::launch(text).map_err(|e| e.message().to_owned())?;
        Ok(Self(element.downcast().map_err(|_| "no pipeline")?))
    }

    /// Itself.
    pub(super) fn pipeline(&self) -> &gst::Pipeline {
        &self.0
    }

    /// The element that the text calls so.
    pub(super) fn element<E: IsA<gst::Element>>(&self, name: &str) -> Result<E, String> {
        let element = self.0.by_name(name).and_then(|element| element.downcast().ok());
        element.ok_or_else(|| format!("no element `{name}`"))
    }

    /// Sets it going; `failure` says what is wrong where it does not go.
    pub(super) fn play(&self, failure: &str) -> Result<(), String> {
        self.0.set_state(gst::State::Playing).map(drop).map_err(|_| failure.to_owned())
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if self.0.set_state(gst::State::Null).is_err() {
            tracing::warn!("a pipeline does not stop");
        }
    }
}
