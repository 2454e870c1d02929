//! `groundd run`: the service.

use tokio_util::sync::CancellationToken;

use super::{Failure, args, model_folders, runtime};
use crate::daemon;

pub(super) fn run(args: &args::Run) -> Result<(), Failure> {
    let runtime = runtime()?;
    let result = runtime.block_on(daemon::serve(&args.config, model_folders(), CancellationToken::new()));
    // A camera's driver may hold a blocking thread for ever; the end does not wait for it.
    runtime.shutdown_background();
    Ok(result?)
}
