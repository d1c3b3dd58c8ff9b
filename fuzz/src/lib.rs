//! What the fuzz targets do with their input: [`conversation`] plays a client of one protocol against codec and session,
//! [`frames`] reads WebSocket frames. The integration tests play the kept corpora through the same functions.

pub mod conversation;
pub mod frames;
