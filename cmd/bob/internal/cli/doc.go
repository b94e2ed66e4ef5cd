// Package cli reads command lines, on top of package ffcli.
//
// Flags may stand before, between and behind the other arguments, and have the short
// names that docker gives them: pflag finds them as it does there, and puts them before
// the arguments, where package flag looks for them. Each flag of a command also reads
// its variable, BOB_ and its name, by package ff.
//
// An error in a command line is a [UsageError]. A command that checks several flags
// joins their errors, and the user sees the error of the flag that comes first.
package cli
