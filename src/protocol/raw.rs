//! passerelle.v1.raw

use crate::protocol::{ProtocolId, Subprotocol};

/// The row of the registry.
pub const SUBPROTOCOL: Subprotocol = Subprotocol {
    name: "passerelle.v1.raw",
    summary: "",
    negotiable: true,
    index: ProtocolId(1),
    encode_live: |_| None,
};
