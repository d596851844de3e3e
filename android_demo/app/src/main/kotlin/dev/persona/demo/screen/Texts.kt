package dev.persona.demo.screen

/** The app's words, from its string resources. */
interface Texts {
    /** A string resource with its places filled. */
    fun text(id: Int, vararg values: Any): String
}
