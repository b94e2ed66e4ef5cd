// Package memo holds values that are made once, when they are first needed, and that
// several goroutines wait for.
//
// Each caller waits as long as its own context lasts. When the last caller gives up,
// the work is canceled, and that caller waits until it has ended. So no goroutine is
// left when all callers have returned.
package memo
