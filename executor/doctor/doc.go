// Package doctor finds out what of that which builds need, or can use, a machine allows.
//
// It looks at no settings but tries: each thing in a child process, this executable again,
// which is a probe's from its Init on. What an error of isolation.Enter says, and what
// Examine says about the same, are one obstacle.
package doctor
