//! The log, the state machine and the group, alone and three together.

mod cluster;
mod kill;
mod lines;
mod proxy;
mod rig;
mod single;
mod storage;
