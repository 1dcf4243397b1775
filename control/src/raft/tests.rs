//! The log, the state machine and the group, alone and three together.

mod cluster;
mod damage;
mod divergence;
mod failpoints;
mod kill;
mod lines;
mod members;
mod proxy;
mod rig;
mod single;
mod storage;
mod versions;
