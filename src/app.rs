//! app

use crate::config::Settings;

/// Runs the bridge.
///
/// # Errors
/// Always, for now.
pub fn serve(_settings: Settings) -> anyhow::Result<()> {
    anyhow::bail!("the bridge is not assembled yet")
}
