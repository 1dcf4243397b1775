//! The generated gRPC messages, clients and servers.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines, reason = "generated from proto/wire")]

/// Between control servers.
pub mod raft {
    tonic::include_proto!("postern.raft.v1");
}
/// What a node may do.
pub mod edge {
    tonic::include_proto!("postern.edge.v1");
}
/// What an operator may do.
pub mod operator {
    tonic::include_proto!("postern.operator.v1");
}
/// Looking into a node.
pub mod inspect {
    tonic::include_proto!("postern.inspect.v1");
}
