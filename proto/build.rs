//! Compiles the wire descriptions with protox, so that no `protoc` has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["raft.proto", "edge.proto", "operator.proto", "inspect.proto"];
    println!("cargo:rerun-if-changed=wire");
    let descriptors = protox::compile(files, ["wire"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
