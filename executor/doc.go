// Package executor runs a build plan: it turns the stages of a Dockerfile into
// layers, an image config and a manifest, and sends them where they are wanted.
//
// # Terms
//
//   - A stage is one FROM and what follows it; a step is one instruction of a
//     stage that has something to do. Steps without an operation change only
//     the image config.
//   - A rootfs is the file system after a step. It is made present on this disk
//     only when somebody reads or changes its files: a stage whose steps are all
//     known costs no layer.
//   - A key names the content that a step leads to, computed from its parent's
//     key and everything the step can see: its recipe. A record is what the store
//     remembers under a key.
//   - A cache is what other machines remember of steps. See package cache.
//   - An image, its layers and its formats are what leaves the build. See package
//     image.
//
// # The life of a build
//
//  1. The stages of the result start at once, others as soon as a step misses that
//     needs their files, or one before it does; until then a forecast gives their
//     keys. Operations are bounded by [Options.Jobs].
//  2. The base of a stage is resolved to a manifest and a config. No layer of it
//     is fetched; if the image is to be pushed elsewhere its layers are mounted
//     or piped there meanwhile.
//  3. Each step is looked up under its key, in the store and then in the imported
//     caches. On a hit nothing is touched: a layer in a cache is fetched when its
//     files are needed, or moved to where the image goes.
//  4. On a miss the parent's rootfs is made present, an overlay is mounted over
//     it, the operation runs, and the upper directory becomes the snapshot.
//  5. The layers of the target are compressed and uploaded beside the next step.
//  6. Config and manifest follow when every layer has arrived; the manifest is
//     last, so that a build which fails leaves no tag behind.
//  7. Caches are exported behind the image, which stands whatever becomes of them.
//
// For several platforms there is a plan for each. They are carried out side by side;
// steps with the same key are done once, and an index over the manifests comes last
// of all.
//
// The package reads no environment and no flags, and it needs what
// [github.com/bobbuild/bob/executor/isolation.Enter] provides: a process that is
// UID 0 in a private mount namespace.
package executor
