//! The model that a view names comes into use when it is what its name says, and never keeps a node from its work.

use std::sync::Arc;

use proto::{
    held::BodyRef,
    identity::Role,
    learning::{Learnt, features::FEATURES, model::Model},
    mutation::{Outcome, Refused},
    view::{StateSettings, ViewChange},
};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::{InUse, follow};
use crate::{
    cluster::{
        Cluster,
        fake::{Authority, Fake, update},
    },
    limits::Limits,
};

fn model(weight: i8) -> Model {
    Model::new("two messages".to_owned(), vec![weight; FEATURES], 0.5, 0.0)
}

/// A file as the state names it.
fn named(file: &[u8]) -> BodyRef {
    let digest = hex::encode(Sha256::digest(file));
    BodyRef { digest, size_bytes: file.len() as u64, servers: vec!["a".into(), "b".into()] }
}

fn change(index: u64, version: u64, body: Option<BodyRef>) -> ViewChange {
    ViewChange { index, policy_version: 1, learnt: Some(Learnt { version, body }), ..ViewChange::default() }
}

struct Rig {
    server: Fake,
    in_use: watch::Receiver<InUse>,
    index: u64,
}

impl Rig {
    async fn start() -> Self {
        let authority = Authority::new();
        let refuse = |_: &_| Ok(Outcome::Refused(Refused::NoSuch));
        let server = Fake::start(authority.credentials(Role::Control, "a"), refuse).await;
        let first = ViewChange { whole: true, settings: Some(StateSettings::default()), ..change(1, 0, None) };
        server.first.lock().expect("a lock").push(update(&first));
        let credentials = authority.credentials(Role::Node, "n1");
        let cluster = Cluster::connect(credentials, vec![server.address.clone()], "north", &Limits::default());
        let cluster = cluster.expect("a cluster");
        cluster.first_view().await;
        let (to, in_use) = watch::channel(InUse::default());
        tokio::spawn(follow(cluster, to));
        Self { server, in_use, index: 1 }
    }

    /// What is in use of this version.
    async fn told(&mut self, version: u64, body: Option<BodyRef>) -> InUse {
        self.index += 1;
        self.server.updates.send(update(&change(self.index, version, body))).expect("a watch");
        self.in_use.wait_for(|in_use| in_use.version == version).await.expect("it goes on").clone()
    }

    fn has(&self, name: &BodyRef, file: &[u8]) {
        self.server.bodies.lock().expect("a lock").insert(name.digest.clone(), file.to_vec());
    }
}

#[tokio::test]
async fn a_model_is_used_as_soon_as_the_view_names_it_and_no_longer() {
    let mut rig = Rig::start().await;
    let file = model(3).bytes();
    rig.has(&named(&file), &file);
    let first = rig.told(1, Some(named(&file))).await;
    assert_eq!((first.model.as_deref(), first.warning()), (Some(&model(3)), None));
    let next = model(-4).bytes();
    rig.has(&named(&next), &next);
    assert_eq!(rig.told(2, Some(named(&next))).await.model, Some(Arc::new(model(-4))));
    let none = rig.told(3, None).await;
    assert_eq!((none.model, none.problem), (None, None));
}

#[tokio::test]
async fn what_cannot_be_had_or_is_no_model_is_left_out_with_a_warning() {
    let mut rig = Rig::start().await;
    let file = model(3).bytes();
    let gone = rig.told(1, Some(named(&file))).await;
    assert!(gone.model.is_none() && gone.warning().is_some_and(|why| why.contains("no such body")), "{gone:?}");
    rig.has(&named(&file), b"another file");
    let other = rig.told(2, Some(named(&file))).await;
    assert!(other.model.is_none() && other.warning().is_some_and(|why| why.contains("version 2")), "{other:?}");
    let nonsense = b"no model at all".to_vec();
    rig.has(&named(&nonsense), &nonsense);
    let read = rig.told(3, Some(named(&nonsense))).await;
    assert!(read.model.is_none() && read.warning().is_some_and(|why| why.contains("not a model")), "{read:?}");
    let large = rig.told(4, Some(BodyRef { size_bytes: 1 << 30, ..named(&file) })).await;
    assert!(large.warning().is_some_and(|why| why.contains("larger")), "{large:?}");
    rig.has(&named(&file), &file);
    assert!(rig.told(5, Some(named(&file))).await.model.is_some(), "the next one is used again");
}
