package dev.persona.demo

import android.content.res.Resources
import dev.persona.demo.screen.Texts

/** The app's words in the phone's language. */
class AndroidTexts(private val resources: Resources) : Texts {
    override fun text(id: Int, vararg values: Any): String = resources.getString(id, *values)
}
