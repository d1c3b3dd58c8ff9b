//! The listener seen from outside its core: frame by frame without a socket, and by a real client over one.

mod clients;
mod frames;
