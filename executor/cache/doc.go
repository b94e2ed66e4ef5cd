// Package cache exchanges results of steps with builds on other machines.
//
// A cache is one manifest: its layers are layers of steps, and its config has records that
// say which steps, over which layers they lie, and when they were made. An image may hold
// the records of its own layers in its config. Keys say nothing of the machine (see
// package recipe), so that results are found wherever they were made.
//
// A build searches the caches after the store. Nothing of their layers is fetched
// before their files are needed. Everything that others wrote is checked. A cache that
// can't be fetched causes a warning.
//
// # Another backend
//
// A backend is a type with two methods, load and save, in a file of its own: see
// registry.go and directory.go. [Source] and [Target] name it.
package cache
