//! Frames of a WebSocket client, compressed or not. In however many pieces they come, they say the same.

use passerelle::transport::websocket::deflate::Negotiated;
use passerelle::transport::websocket::reader::{Limits, Reader, Received, Scratch};

/// Bytes of a message at most.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// Reads input whose first byte says whether compression was negotiated, and the second in pieces of how many bytes it comes.
///
/// # Panics
/// When it is read otherwise in pieces than as a whole, or takes more memory than it may.
pub fn read(data: &[u8]) {
    let [first, piece, frames @ ..] = data else { return };
    let offer = (first & 1 == 1).then_some("permessage-deflate");
    let deflate = || Negotiated::from_offers(offer.into_iter());
    let whole = said(frames, frames.len(), deflate());
    assert_eq!(whole, said(frames, usize::from(*piece), deflate()), "in pieces of {piece}");
}

fn said(frames: &[u8], piece: usize, deflate: Option<Negotiated>) -> Vec<String> {
    let limits = Limits { message_bytes_max: MESSAGE_BYTES_MAX, fragments_max: 16 };
    let (mut reader, mut scratch, mut said) = (Reader::new(limits, deflate), Scratch::default(), Vec::new());
    for piece in frames.chunks(piece.max(1)) {
        let mut bytes = piece.to_vec();
        let mut input = bytes.as_mut_slice();
        loop {
            match reader.next(&mut input, &mut scratch) {
                Ok(None) => break,
                Ok(Some(received)) => {
                    if let Received::Text(text) = received {
                        assert!(text.len() <= MESSAGE_BYTES_MAX, "{} bytes", text.len());
                    }
                    said.push(format!("{received:?}"));
                }
                Err(fault) => said.push(format!("{fault:?}")),
            }
        }
        assert!(reader.held_bytes() <= 4 * MESSAGE_BYTES_MAX, "{} bytes are held", reader.held_bytes());
    }
    said
}
