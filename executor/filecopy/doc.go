// Package filecopy has the file semantics of COPY and ADD.
package filecopy
