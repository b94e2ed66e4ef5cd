// Package silence keeps the terminal libraries from talking to the terminal when
// the program starts.
//
// Importing bubbletea v1 makes its initialisation ask lipgloss for the
// terminal's background colour. If standard output is a terminal, that writes
// two queries to it, turns echo off, and waits up to five seconds for the
// answers, in every command and in every re-executed child, used or not. The
// question isn't asked once the answer is set. The language initialises
// packages whose imports are ready in the order of their paths, so this one,
// which imports only lipgloss, comes before bubbletea. A test of package
// progress would notice if it didn't.
//
// The package can go when bubbletea is at version 2.
package silence

import "github.com/charmbracelet/lipgloss"

func init() {
	lipgloss.SetHasDarkBackground(true)
}
