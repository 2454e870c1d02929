//! `groundd run`: the service.

use tokio_util::sync::CancellationToken;

use super::{Failure, args, block_on, model_folders};
use crate::daemon;

pub(super) fn run(args: &args::Run) -> Result<(), Failure> {
    block_on(daemon::serve(&args.config, model_folders(), CancellationToken::new()))
}
