//! The words every stage speaks: frames, queries, boxes, groundings; and the accounts and clocks that stages share.
//!
//! Nothing here knows tokio, GStreamer, ONNX Runtime or MQTT, so each stage can be read, built and tested
//! on its own against these types alone.

pub mod batch;
pub mod canvases;
pub mod chain;
pub mod disk;
pub mod event;
pub mod followed;
pub mod frame;
pub mod geometry;
pub mod grounding;
pub mod id;
pub mod ledger;
pub mod lock;
pub mod published;
pub mod pulse;
pub mod query;
pub mod reminder;
pub mod setting;
pub mod span;
pub mod underway;
pub mod work;

pub use batch::{Batch, Job};
pub use canvases::Canvases;
pub use chain::chain;
pub use disk::may_pass;
pub use event::{Best, EventKind, TrackEvent};
pub use followed::Followed;
pub use frame::{Canvas, Capture, Clock, Frame, FullFrame, Rgb};
pub use geometry::{BBox, Letterbox, Size, overlap};
pub use grounding::{Answer, Grounding, Match, ScoreKind, Status, Timings, Via};
pub use id::{CameraId, IdError, QueryId};
pub use ledger::{DropReason, Ledger, Ticket};
pub use lock::lock;
pub use pulse::{Busy, Pulse};
pub use query::{Method, Query, QuerySet, Worth};
pub use reminder::Reminder;
pub use setting::WrongSetting;
pub use span::seconds;
pub use underway::Underway;
pub use work::{ShedReason, Work};
