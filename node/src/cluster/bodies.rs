//! Bodies over the edge service: sent in chunks, named by SHA-256, and believed only with length and digest right.

use std::time::Duration;

use bytes::Bytes;
use proto::{
    held::BodyRef,
    wire::edge::{BodyChunk, BodyRequest, edge_client::EdgeClient},
};
use sha2::{Digest, Sha256};
use tonic::{Status, transport::Channel};

use super::{Cluster, ClusterError};

/// Bytes of one chunk.
const CHUNK_BYTES: usize = 256 * 1024;
/// A body is given this much more time for each megabyte: two fsynced copies in two sites.
const PER_MEGABYTE: Duration = Duration::from_millis(500);

/// Streams a body to a server, which answers when it is durable in two sites.
pub(super) async fn put(cluster: &Cluster, body: Bytes) -> Result<BodyRef, ClusterError> {
    let digest = digest_of(body.clone()).await?;
    let size_bytes = body.len() as u64;
    let each = patience(cluster, size_bytes);
    let rounds = each * u32::try_from(cluster.servers.len()).unwrap_or(1);
    let stored = cluster
        .ask(each, rounds, |mut client| {
            let chunks = tokio_stream::iter(chunks(&digest, body.clone()));
            async move { client.put_body(chunks).await }
        })
        .await?;
    Ok(BodyRef { digest, size_bytes, servers: stored.into_inner().servers })
}

/// Fetches a body; a server that has it wrong counts as one that does not have it.
pub(super) async fn fetch(cluster: &Cluster, body: &BodyRef) -> Result<Bytes, ClusterError> {
    let each = patience(cluster, body.size_bytes);
    let rounds = each * u32::try_from(cluster.servers.len()).unwrap_or(1);
    cluster.ask(each, rounds, |client| fetch_from(client, body)).await
}

async fn fetch_from(mut client: EdgeClient<Channel>, body: &BodyRef) -> Result<Bytes, Status> {
    let request = BodyRequest { digest: body.digest.clone(), size_bytes: body.size_bytes };
    let mut stream = client.get_body(request).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.message().await? {
        bytes.extend_from_slice(&chunk.data);
        if bytes.len() as u64 > body.size_bytes {
            return Err(Status::data_loss("the body is longer than its record says"));
        }
    }
    if bytes.len() as u64 != body.size_bytes {
        return Err(Status::data_loss("the body is shorter than its record says"));
    }
    let bytes = Bytes::from(bytes);
    let digest = digest_of(bytes.clone()).await.map_err(|error| Status::internal(error.to_string()))?;
    if digest != body.digest {
        return Err(Status::data_loss("the body has another digest than its record says"));
    }
    Ok(bytes)
}

fn patience(cluster: &Cluster, size_bytes: u64) -> Duration {
    let megabytes = u32::try_from(size_bytes / (1024 * 1024)).unwrap_or(u32::MAX);
    cluster.control_timeout.saturating_add(PER_MEGABYTE.saturating_mul(megabytes))
}

/// SHA-256 in lower-case hex, off the runtime's threads: 50 MiB take a tenth of a second.
async fn digest_of(bytes: Bytes) -> Result<String, ClusterError> {
    let digest = tokio::task::spawn_blocking(move || hex::encode(Sha256::digest(&bytes))).await;
    digest.map_err(|error| ClusterError::Away(format!("digest the body: {error}")))
}

/// The body as the wire carries it; an empty body is one empty chunk.
fn chunks(digest: &str, body: Bytes) -> impl Iterator<Item = BodyChunk> + Send + use<> {
    let digest = digest.to_owned();
    let size_bytes = body.len() as u64;
    (0..body.len().div_ceil(CHUNK_BYTES).max(1)).map(move |at| {
        let from = at * CHUNK_BYTES;
        let to = body.len().min(from + CHUNK_BYTES);
        BodyChunk { digest: digest.clone(), size_bytes, data: body[from..to].to_vec() }
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{CHUNK_BYTES, chunks};

    #[test]
    fn a_body_is_cut_into_chunks_that_add_up_to_it() {
        for len in [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            let body: Bytes = (0..len).map(|at| (at % 251) as u8).collect();
            let parts: Vec<_> = chunks("d", body.clone()).collect();
            assert_eq!(parts.len(), len.div_ceil(CHUNK_BYTES).max(1), "{len}");
            assert!(parts.iter().all(|part| part.data.len() <= CHUNK_BYTES && part.size_bytes == len as u64));
            let joined: Vec<u8> = parts.into_iter().flat_map(|part| part.data).collect();
            assert_eq!(joined, body);
        }
    }
}
