PASSAGES = ["On Sundays we open at ten.", "Tents can be rented.", "The cellar is closed."]
