//go:build !386

package main

// No other architecture that the tests run has narrow calls.
func narrow() {}
