// Package memo holds values that are made once, when they are first needed, and that
// several goroutines wait for.
//
// Whoever asks waits as long as its own context lasts. Nothing is made that nobody waits
// for any more, and the last one to give up waits until the work has ended: when all who
// asked have returned, no goroutine is left.
package memo
