//! Which cameras' pictures are with a model just now.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard},
};

use super::{CameraId, lock};

/// Cameras of which a picture was cut and not answered yet. Two models at once may not have pictures of one camera: what is
/// known of it is with the one that has its picture, and its answers come in the pictures' order.
#[derive(Debug, Default)]
pub struct Underway(Mutex<HashSet<CameraId>>);

impl Underway {
    /// A picture goes to a model.
    pub fn begin(&self, camera: &CameraId) {
        self.cameras().insert(camera.clone());
    }

    /// It was answered.
    pub fn end(&self, camera: &CameraId) {
        self.cameras().remove(camera);
    }

    /// Whether one of this camera is with a model.
    pub fn has(&self, camera: &CameraId) -> bool {
        self.cameras().contains(camera)
    }

    fn cameras(&self) -> MutexGuard<'_, HashSet<CameraId>> {
        lock(&self.0)
    }
}
