//! passerelle.v1.json

use crate::protocol::{ProtocolId, Subprotocol};

/// The row of the registry.
pub const SUBPROTOCOL: Subprotocol = Subprotocol {
    name: "passerelle.v1.json",
    summary: "",
    negotiable: true,
    index: ProtocolId(0),
    encode_live: |_| None,
};
