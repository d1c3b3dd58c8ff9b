//! sse

use crate::protocol::{ProtocolId, Subprotocol};

/// The row of the registry.
pub const SUBPROTOCOL: Subprotocol =
    Subprotocol { name: "sse", summary: "", negotiable: false, index: ProtocolId(2), encode_live: |_| None };
