package registry

import "net/http"

// What registries answer when they have done what they were asked. The
// distribution-spec v1.1 names one status for most requests; these are those that
// are met as well. A function returns each, since a slice could be changed.

// uploadBegun is for POST of an upload; the spec has 202.
func uploadBegun() []int {
	return []int{http.StatusAccepted, http.StatusOK, http.StatusNoContent}
}

// partStored is for PATCH and PUT of a blob, or of a part of one, and for PUT of a
// manifest; the spec has 202 for PATCH and 201 for PUT.
func partStored() []int {
	return []int{http.StatusCreated, http.StatusAccepted, http.StatusNoContent, http.StatusOK}
}

// uploadKnown is for GET of an upload; the spec has 204.
func uploadKnown() []int {
	return []int{http.StatusNoContent, http.StatusOK, http.StatusAccepted}
}

// blobLooked is for HEAD of a blob; the spec has 200 and 404. Anything else that is
// about the question rather than about who asks, or about the registry's health,
// counts as not there: registries refuse the question to those who may push only,
// know no HEAD, or redirect it to a store that has signed a GET. Sending the blob
// will tell.
func blobLooked() []int {
	return []int{
		http.StatusOK, http.StatusNotFound, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusNotImplemented,
		http.StatusNoContent, http.StatusBadRequest, http.StatusGone, http.StatusNotAcceptable, http.StatusUnprocessableEntity,
	}
}
